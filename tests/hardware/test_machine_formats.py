"""Files that describe one machine: NCCL's XML and the matrix of nvidia-smi; and GraphML out."""

from __future__ import annotations

import io
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from moesim import yamlfile
from moesim.errors import BadInput
from moesim.hardware import load_cluster
from moesim.hardware.formats import Imported, export_topology, import_topology
from moesim.hardware.formats.format import yaml_text
from moesim.hardware.load import known_topologies
from moesim.hardware.validate import check_integrity

PEER = '<nvlink target="0000:{t}:00.0" count="2" tclass="0x030200"/>'
SWITCH = '<nvlink target="0000:d{s}:00.0" count="{n}" tclass="0x068000"/>'


def xml(gpus: list[str], nets: str = "", sm: int = 90) -> str:
    slots = [
        f'<pci busid="0000:{10 + g}:00.0" class="0x030200" link_speed="32.0 GT/s PCIe" link_width="16">\n'
        f'<gpu dev="{g}" sm="{sm}" rank="{g}" gdr="1">{links}</gpu></pci>\n'
        for g, links in enumerate(gpus)
    ]
    return f'<system version="1"><cpu numaid="0" arch="x86_64">\n{"".join(slots)}<nic>{nets}</nic></cpu></system>\n'


def net(number: int, speed: int = 400000) -> str:
    return f'<net name="mlx5_{number}" dev="{number}" speed="{speed}" port="1"/>'


def imported(tmp_path: Path, text: str, like: str = "dgx-h100", name: str = "topo.xml") -> Imported:
    path = tmp_path / name
    path.write_text(text)
    return import_topology(path, like=like)


HOPPER = xml([SWITCH.format(s=0, n=9) + SWITCH.format(s=1, n=9)] * 8, "".join(map(net, range(8))))


def test_a_hopper_machine_is_the_shipped_one(tmp_path: Path) -> None:
    made = imported(tmp_path, HOPPER)
    path = tmp_path / "made.yaml"
    path.write_text(made.text)
    cluster, shipped = load_cluster(path, nodes=4), load_cluster("dgx-h100", nodes=4)
    assert np.array_equal(cluster.table, shipped.table)
    assert np.array_equal(cluster.link_capacity, shipped.link_capacity)
    assert made.notes == ()


def test_gpus_in_a_ring_of_nvlinks_keep_pcie_for_the_rest(tmp_path: Path) -> None:
    near = '<nvlink target="0000:{t}:00.0" count="{n}" tclass="0x030200"/>'
    ring = [near.format(t=10 + (g + 1) % 4, n=4) + near.format(t=10 + (g - 1) % 4, n=4) for g in range(4)]
    cluster = imported(tmp_path, xml(ring, sm=80), like="dgx-a100").cluster
    check_integrity(cluster)
    assert [cluster.link_name[link] for link in cluster.path[0, 1] if link >= 0] == ["gpu0->gpu1"]
    assert cluster.link_capacity[cluster.table[0, 1, 0]] == 4 * 25e9
    assert [cluster.link_name[link] for link in cluster.path[0, 2] if link >= 0] == ["gpu0->pcie", "pcie->gpu2"]


def test_without_nvlink_it_is_pcie_and_gpus_share_ports(tmp_path: Path) -> None:
    made = imported(tmp_path, xml([""] * 8, net(0) + net(1) + net(2, 25000)))
    kinds = dict(zip(made.cluster.link_kind, made.cluster.link_capacity, strict=True))
    assert kinds == {"pcie_up": 64e9, "pcie_down": 64e9}  # one node: no port is in use
    assert "nics: 2" in made.text and "value: 50 GB/s" in made.text
    assert made.notes[1] == "1 ports that are slower are left out"
    assert "the nearest port is in the same socket; it is shared" in made.notes[0]


def test_two_ports_a_gpu_act_as_one_and_another_generation_is_said(tmp_path: Path) -> None:
    made = imported(tmp_path, xml([SWITCH.format(s=0, n=12)] * 2, "".join(map(net, range(4))), sm=80))
    assert "value: 100 GB/s" in made.text and "value: 300 GB/s" in made.text
    assert len(made.notes) == 2 and "another generation than H100-SXM5-80GB" in made.notes[1]
    assert made.notes[1].endswith("--like dgx-a100 has theirs")


def test_ports_away_from_gpus_and_repeated_ones_do_not_count(tmp_path: Path) -> None:
    near = (
        HOPPER.replace("<cpu ", '<cpu host_hash="1" ').replace("<nic>", "<pci><pci>").replace("</nic>", "</pci></pci>")
    )
    assert imported(tmp_path, near).notes == ()  # in no tree with a GPU, as all are: every port counts
    away = "".join(f"<pci>{slot}</pci>" for slot in (net(8), net(9), net(9)))
    inside = HOPPER.replace("</gpu></pci>", "</gpu>{}</pci>").format(*map(net, range(8)))
    text = inside.split("<nic>")[0] + away + "</cpu></system>"
    made = imported(tmp_path, text)
    assert made.notes == ("2 ports are left out: nearer to no GPU than others",)
    assert "nics" not in made.text


def bare(switches: int, device: str, port: str = "0x020700") -> str:
    """PCI devices alone, as clouds ship them: a bridge with two GPUs and a port each."""
    slot = '<pci busid="{b}:{d}:00.0" class="{c}" device="{i}" link_speed="32.0 GT/s PCIe" link_width="16"/>'
    inside = [
        "".join([*(slot.format(b=s, d=d, c="0x030200", i=device) for d in "12"), slot.format(b=s, d=3, c=port, i="")])
        for s in range(switches)
    ]
    bridges = "".join(f'<pci busid="ff:{s}" class="0x060400">{each}</pci>' for s, each in enumerate(inside))
    return f'<system version="1"><cpu numaid="0">{bridges}</cpu></system>'


def test_a_file_of_pci_devices_has_the_nvlinks_of_its_device(tmp_path: Path) -> None:
    made = imported(tmp_path, bare(4, "0x20b0"), like="dgx-a100")
    assert set(made.cluster.link_capacity) == {12 * 25e9} and made.cluster.num_devices == 8
    assert "nics: 4" in made.text and "value: 200 Gb/s" in made.text  # two GPUs and one port below each bridge
    assert made.notes[0].endswith("12 NVLinks a GPU into a switch are assumed, by the GPUs' PCI device id")
    assert made.notes[1] == "the file states no rate of ports: 200 Gb/s, as in dgx-a100"
    assert made.found.startswith("8 GPUs (A100-SXM4-80GB) in 1 nodes; per GPU and direction: nvlink 300 GB/s, nic 12.5")
    unnamed = imported(tmp_path, bare(4, ""))
    assert set(unnamed.cluster.link_capacity) == {18 * 25e9} and "does not say which GPUs" in unnamed.notes[0]
    cards = imported(tmp_path, bare(1, "0x20b5"), like="dgx-a100").cluster
    assert set(cards.link_kind) == {"pcie_up", "pcie_down"}


def test_a_management_controller_is_no_gpu(tmp_path: Path) -> None:
    """ASPEED's is a VGA device on most servers' boards."""
    board = '<pci busid="f0:1:00.0" class="0x030000" vendor="0x1a03" device="0x2000"/></cpu>'
    gpus = bare(2, "0x2330").replace('class="0x030200"', 'class="0x030200" vendor="0x10de"')
    made = imported(tmp_path, gpus.replace("</cpu>", board))
    assert made.cluster.num_devices == 4
    assert made.notes[-1] == "1 display controllers of other vendors than NVIDIA are left out"


def test_gpus_of_two_kinds_in_one_machine_are_told(tmp_path: Path) -> None:
    """Of two generations they are refused, by whatever the file says; H100 and H200 have the same links and slots."""
    two = bare(2, "0x2330").replace('device="0x2330"', 'device="0x20b0"', 1)
    with pytest.raises(BadInput, match=r"another kind \(0x2330\) than the first \(0x20b0\). Try: a file of each"):
        imported(tmp_path, two)
    alike = imported(tmp_path, bare(2, "0x2330").replace('device="0x2330"', 'device="0x2335"', 1))
    assert "the file's GPUs have 2 PCI device ids (0x2330, 0x2335): all are taken to be of one kind" in alike.notes
    around = "NVIDIA A100-SXM4-80GB\nNVIDIA H100 PCIe\n" + matrix(2, "SYS")
    said = "the text names several GPUs (A100, H100): all of the machine are taken to be H100-SXM5-80GB"
    assert said in imported(tmp_path, around, name="t.txt").notes


def test_nvlinks_of_a_gpu_to_itself_are_none(tmp_path: Path) -> None:
    made = imported(tmp_path, xml([PEER.format(t=10), PEER.format(t=11)], sm=80), like="dgx-a100")
    assert set(made.cluster.link_kind) == {"pcie_up", "pcie_down"}
    assert made.notes[0].startswith("4 NVLinks lead from GPUs to themselves and are left out")


def test_a_gpu_off_the_switch_goes_over_pcie(tmp_path: Path) -> None:
    """Seven of eight pairs show 18 links each, far more than a GPU has: a switch, and GPU 2 is not on it."""
    rows = [line.split() for line in matrix(8, "NV18").replace("\x1b[4m", "").replace("\x1b[0m", "").splitlines()[1:9]]
    for a, row in enumerate(rows):
        for b in range(8):
            if a != b and 2 in (a, b):
                row[b + 1] = "SYS"
    text = "\n".join(["\t" + "\t".join(f"GPU{g}" for g in range(8)), *("\t".join(row[:9]) for row in rows)])
    made = imported(tmp_path, text, name="topo.txt")
    width = made.cluster.link_capacity[made.cluster.table].min(axis=2, initial=np.inf, where=made.cluster.table >= 0)
    assert width[0, 7] == 450e9 and width[0, 2] == width[2, 7] == 64e9
    assert "GPU 2 without NVLink: over PCIe to every other GPU" in made.notes
    assert "nvlink 0 B/s to 450 GB/s" in made.found


def test_a_gpu_without_a_near_port_shares_another(tmp_path: Path) -> None:
    """Ports of GPUs 0 and 2 only, and two that are far from all: of four ports two serve, two GPUs each."""
    head = "\t" + "\t".join([*(f"GPU{g}" for g in range(4)), *(f"NIC{n}" for n in range(4))])
    near = {(0, 0), (2, 1)}
    rows = [
        "\t".join([f"GPU{a}", *("X" if a == b else "NV18" for b in range(4)),
                   *("PIX" if (a, n) in near else "SYS" for n in range(4))])
        for a in range(4)
    ]  # fmt: skip
    made = imported(tmp_path, "\n".join([head, *rows]), name="topo.txt")
    assert "nics: 2" in made.text and "2 ports are left out: nearer to no GPU than others" in made.notes
    assert any(note.startswith("GPU 1, GPU 3: the nearest port is behind the other socket") for note in made.notes)
    uneven = imported(
        tmp_path, "\n".join([head, rows[0], rows[1].replace("SYS", "PIX", 1), *rows[2:]]), name="topo.txt"
    )
    assert "port_of: [0, 0, 1, 1]" in uneven.text or "nics: 2" in uneven.text


def test_uneven_ports_are_played_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "uneven.yaml"
    device = yamlfile.read_yaml(known_topologies()["dgx-h100"]).data["device"]
    node = {
        "gpus": 4,
        "nvlink": {"value": "450 GB/s", "source": "made up"},
        "nic": {"value": "50 GB/s", "source": "made up"},
    }
    text = {
        "moesim_topology": 1,
        "name": "u",
        "device": device,
        "node": {**node, "port_of": [0, 0, 0, 1]},
        "fabric": {"nodes": 2},
    }
    path.write_text(yaml_text(text))
    cluster = load_cluster(path)
    check_integrity(cluster)
    assert [cluster.link_name[cluster.table[gpu, 4, 0]] for gpu in range(4)] == ["nic0/nic_out"] * 3 + ["nic1/nic_out"]
    path.write_text(yaml_text({**text, "node": {**node, "port_of": [0, 0, 2, 2]}}))
    with pytest.raises(BadInput, match="port_of numbers ports from 0 without gaps"):
        load_cluster(path)


def simai(gpus: int = 4, servers: int = 2) -> str:
    """Servers of `gpus` GPUs behind an NVSwitch, a leaf for each of two rails, no spine."""
    total, inner = gpus * servers, [gpus * servers + s for s in range(servers)]
    leaves = [total + servers, total + servers + 1]
    links = [f"{g} {inner[g // gpus]} 3600Gbps 0.000025ms 0" for g in range(total)]
    links += [f"{g} {leaves[g % 2]} 400Gbps 0.0005ms 0" for g in range(total)]
    counts = f"{total + servers + 2} {gpus} {servers} 2 {len(links)} H100"
    return "\n".join([counts, " ".join(map(str, [*inner, *leaves])), *links]) + "\n"


def test_the_link_list_of_ns3_backends(tmp_path: Path) -> None:
    made = imported(tmp_path, simai(), name="simai.txt")
    cluster = made.cluster
    check_integrity(cluster)
    assert (cluster.num_devices, cluster.num_nodes) == (8, 2)
    kinds = [cluster.link_kind[link] for link in cluster.path[0, 6] if link >= 0]
    assert kinds == ["nic", "nic"]  # the same rail
    assert set(cluster.link_capacity) == {450e9, 50e9} and sorted(set(cluster.link_latency)) == pytest.approx(
        [25e-9, 500e-9]
    )
    twice = "3 1 3\n2\n0 2 100Gbps 1us 0\n0 2 100Gbps 1us 0\n1 2 200Gbps 1us 0\n"
    plain = imported(tmp_path, twice, name="hpcc.txt")
    assert set(plain.cluster.link_capacity) == {25e9} and plain.cluster.num_nodes == 2
    assert "does not say which share a server" in plain.notes[0] and plain.notes[1].startswith("1 links stand beside")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("0 8 3600Gbps", "0 99 3600Gbps", r"simai\.txt:3: 0 99 are no two of ids 0 to 11"),
        ("0 8 3600Gbps", "0 8 fastGbps", r":3: fastGbps 0.000025ms are no rate and delay"),
        ("0 8 3600Gbps", "0 8 0Gbps", r":3: a rate of 0"),
        ("0.000025ms 0\n1", "0.000025ms\n1", r":3: 4 words, a link has 5"),
        (" 16 H100", " 17 H100", r":1: 16 links, its first line says 17"),
        ("8 9 10 11", "8 9 10 10", r":2: 4 ids of switches below 12"),
        ("12 4 2 2", "12 3 2 2", r":1: 8 GPUs in servers of 3"),
    ],
)
def test_bad_link_lists_name_the_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in simai()
    with pytest.raises(BadInput, match=said):
        imported(tmp_path, simai().replace(old, new, 1), name="simai.txt")


@pytest.mark.parametrize("name", ["a.txt", "a.xml", "a.conf"])
def test_ten_thousand_empty_lines_cost_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="not recognised"):
        imported(tmp_path, "\n" * 10_000 + "hello " + "a" * 40_000, name=name)


BOMB = '<!DOCTYPE s [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><system>&b;</system>'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, r"topo\.xml:1: a document type is not allowed"),
        ('<!DOCTYPE s SYSTEM "file:///etc/passwd"><system/>', "document type"),
        ("<system>", r"topo\.xml:1: not XML"),
        ("<system>\n<a></b></system>", r"topo\.xml:2: not XML: mismatched tag"),
        ("<system>" + "<a>" * 40, "nested deeper than 32"),
        ("<system/>", "no <system> with GPUs.*NCCL_TOPO_DUMP_FILE"),
        (xml([""], sm=12), "sm 12 is not known. Try: one of 80, 90, 100"),
        (xml([""]).replace('dev="0"', 'dev="-1"'), r"topo\.xml:3 gpu: dev='-1' is no count"),
        (xml([""]).replace('dev="0"', ""), "dev=None is no count"),
        (xml([SWITCH.format(s=0, n=18) + PEER.format(t=11), PEER.format(t=10)]), "to a switch and some to each other"),
        (xml(['<nvlink target="0000:11:00.0" count="2" tclass="0x030200"/>', ""]), "GPUs 0 and 1 count"),
        (xml(['<nvlink target="0000:77:00.0" count="2" tclass="0x030200"/>']), "is no GPU of the file"),
        (xml([""], net(0, 0)), "speed=0"),
        (xml([""] * 2).replace('dev="1"', 'dev="0"'), "two GPUs are dev 0"),
        (
            xml([""] * 3).replace('dev="2" sm="90"', 'dev="2" sm="80"'),
            r"topo\.xml:6 pci: is a GPU of another kind \(sm 80\) than the first \(sm 90\). Try: a file of each",
        ),
    ],
)
def test_bad_xml_names_the_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        imported(tmp_path, text)


def matrix(gpus: int, cell: str, nics: int = 0, nearest: str = "PXB") -> str:
    names = [f"GPU{g}" for g in range(gpus)] + [f"NIC{n}" for n in range(nics)]
    rows = ["\t\x1b[4m" + "\t".join([*names, "CPU Affinity", "NUMA Affinity", "GPU NUMA ID"]) + "\x1b[0m"]
    for a, name in enumerate(names):
        cells = ["X" if a == b else _cell(a, b, gpus, nics, cell, nearest) for b in range(len(names))]
        rows.append("\t".join([name, *(f" {c} " for c in cells), *(["0-55", "0", "N/A"] if a < gpus else [])]))
    return "\n".join([*rows, "", "Legend:", "  X    = Self", "  SYS  = far", "NIC Legend:", "  NIC0: mlx5_0"]) + "\n"


def _cell(a: int, b: int, gpus: int, nics: int, cell: str, nearest: str) -> str:
    if a < gpus and b < gpus:
        return cell
    if a >= gpus and b >= gpus:
        return "NODE"
    gpu, nic = min(a, b), max(a, b) - gpus
    return nearest if gpu * nics // gpus == nic else "SYS"


def test_a_matrix_of_a_switched_machine_is_the_shipped_one(tmp_path: Path) -> None:
    made = imported(tmp_path, matrix(8, "NV18", 8), name="topo.txt")
    shipped = load_cluster("dgx-h100")
    assert np.array_equal(made.cluster.table, shipped.table)
    assert np.array_equal(made.cluster.link_capacity, shipped.link_capacity)
    assert "nic:" in made.text and "nics" not in made.text
    h800 = imported(tmp_path, matrix(8, "NV8", 4), "hgx-h800", "topo.txt")
    assert set(h800.cluster.link_capacity) == {200e9} and "nics: 4" in h800.text


def test_nics_that_two_gpus_share_below_one_bridge_count_once_each(tmp_path: Path) -> None:
    shared = matrix(4, "NV18", 4, "PXB").replace("\x1b[4m", "").replace("\x1b[0m", "").expandtabs(8).splitlines()
    for row, text in enumerate(shared[1:5], start=1):
        cells = text.split()
        nics = ["PXB" if (nic - 5) // 2 == (row - 1) // 2 else "SYS" for nic in range(5, 9)]
        shared[row] = "   ".join([*cells[:5], *nics, *cells[9:]])
    assert "nics" not in imported(tmp_path, "\n".join(shared), name="topo.txt").text
    crowded = imported(tmp_path, matrix(2, "NV12", 3, "PIX").replace("SYS", "PIX"), name="topo.txt")
    assert crowded.notes[2] == "3 ports lie near 2 GPUs; one for each GPU is taken"


def test_a_matrix_of_a_bridged_pair_and_of_pcie_cards(tmp_path: Path) -> None:
    pair = imported(tmp_path, matrix(2, "NV12"), name="topo.txt").cluster
    assert (pair.link_kind, set(pair.link_capacity)) == (("nvlink_pair", "nvlink_pair"), {300e9})
    cards = imported(tmp_path, matrix(4, "SYS", 2, "PIX"), "l40s-pcie", "topo.txt")
    assert set(cards.cluster.link_capacity) == {32e9} and "nics: 2" in cards.text


def test_what_stands_around_a_matrix_tells_another_gpu_and_one_without_nvlinks_says_so(tmp_path: Path) -> None:
    around = "GPU 0,1,2,3,4,5,6,7: NVIDIA B300 SXM6 AC\nNVIDIA Topology:\n" + matrix(8, "NV18", 8)
    assert any("names NVIDIA B300, not H100-SXM5" in note for note in imported(tmp_path, around, name="t.txt").notes)
    assert not any("names" in note for note in imported(tmp_path, around, "b300", "b300.txt").notes)
    pcie = imported(tmp_path, "root@node:~# nvidia-smi topo -mp\n" + matrix(8, "NODE", 8), name="pcie.txt")
    assert any("`nvidia-smi topo -mp` leaves them out" in note for note in pcie.notes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (matrix(2, "NV4").replace(" X ", " NV4 ", 1), "not symmetric with X"),
        (matrix(2, "NV4").replace(" NV4 ", " SYS ", 1), "not symmetric"),
        (matrix(2, "NVX"), r"topo\.txt:2: cell 'NVX' is not in the legend"),
        (matrix(3, "NV4").split("GPU2\t NV4")[0] + "GPU2\t NV4\n", r"topo\.txt:4: row GPU2 has 1 cells for 3"),
        (matrix(8, "NV36"), "more than the device of 'like' has"),
        (matrix(2, "NV4").replace("\nGPU1", "\nGPU7"), "rows of GPUs are GPU0, GPU7"),
        (matrix(8, "NV18").split("\nGPU2")[0] + "\n", "column GPU2 has no row. Try: the whole matrix"),
    ],
)
def test_bad_matrices_say_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        imported(tmp_path, text, name="topo.txt")


def test_formats_are_recognised_or_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not recognised.*nccl-xml, ns3-links, nvidia-smi"):
        imported(tmp_path, "hello\n")
    with pytest.raises(BadInput, match="did you mean 'nccl-xml'"):
        import_topology(tmp_path / "topo.xml", format="nccl_xml")
    with pytest.raises(BadInput, match="unknown export format 'slurm-conf'.*astra-sim, graphml"):
        export_topology(load_cluster("dgx-h100"), "slurm-conf")


@pytest.mark.parametrize("name", ["dgx-h100", "l40s-pcie", "atlas-800t-a2"])
def test_graphml_holds_every_link(name: str) -> None:
    cluster = load_cluster(name, nodes=2)
    text = export_topology(cluster, "graphml").text
    graph = nx.read_graphml(io.BytesIO(text.encode()), force_multigraph=True)
    edges = sorted((data["name"], data["bytes_per_second"], data["kind"]) for *_, data in graph.edges(data=True))
    assert edges == sorted(zip(cluster.link_name, cluster.link_capacity, cluster.link_kind, strict=True))
    assert graph.is_directed() and graph.nodes["gpu9"] == {
        "kind": "gpu",
        "device": graph.nodes["gpu9"]["device"],
        "node": 1,
        "rail": 1,
    }
    assert text == export_topology(load_cluster(name, nodes=2), "graphml").text
