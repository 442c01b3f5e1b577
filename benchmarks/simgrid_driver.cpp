// Plays one fluid problem in SimGrid: reads `case`, prints the CPU seconds of the run phase, then every finish time.
// Usage: driver CASE Lazy|Full. CASE holds int64 hosts, links, flows; double capacity[links]; per flow int64 source,
// destination, double bytes, int64 hops, link[hops]. One flow per pair of hosts, since SimGrid's routes are per pair.
#include <ctime>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>
#include <simgrid/s4u.hpp>
namespace sg4 = simgrid::s4u;

struct Flow {
  int64_t source, destination;
  double bytes;
};

template <typename T = int64_t> static T number(std::ifstream& in) {
  T value;
  in.read(reinterpret_cast<char*>(&value), sizeof value);
  return value;
}

static double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

int main(int argc, char** argv) {
  // Without these SimGrid adds TCP windows, reverse traffic and latency weights to max-min sharing.
  sg4::Engine engine(&argc, argv);
  for (const char* option : {"network/model:CM02", "network/TCP-gamma:0", "network/crosstraffic:0", "network/weight-S:0"})
    sg4::Engine::set_config(option);
  sg4::Engine::set_config(std::string("network/optim:") + argv[2]);
  std::ifstream in(argv[1], std::ios::binary);
  const int64_t hosts = number(in), links = number(in), flows = number(in);
  auto* zone = sg4::create_full_zone("cluster");
  std::vector<sg4::Host*> host;
  for (int64_t i = 0; i < hosts; i++) host.push_back(zone->create_host("gpu" + std::to_string(i), 1e9));
  std::vector<const sg4::Link*> link;
  for (int64_t i = 0; i < links; i++)
    link.push_back(zone->create_link("link" + std::to_string(i), number<double>(in))->set_latency(0)->seal());
  std::vector<Flow> work;
  for (int64_t i = 0; i < flows; i++) {
    Flow flow{number(in), number(in), number<double>(in)};
    const int64_t hops = number(in);
    std::vector<sg4::LinkInRoute> route;
    for (int64_t hop = 0; hop < hops; hop++) route.emplace_back(link[number(in)]);
    zone->add_route(host[flow.source]->get_netpoint(), host[flow.destination]->get_netpoint(), nullptr, nullptr, route,
                    false);
    work.push_back(flow);
  }
  zone->seal();
  std::vector<sg4::CommPtr> comms;
  sg4::Actor::create("all", host[0], [&]() {
    for (const auto& flow : work)
      comms.push_back(sg4::Comm::sendto_async(host[flow.source], host[flow.destination], flow.bytes));
    sg4::Comm::wait_all(comms);
  });
  const double begin = cpu_seconds();
  engine.run();
  std::printf("%.6f\n", cpu_seconds() - begin);
  for (const auto& comm : comms) std::printf("%.17g\n", comm->get_finish_time());
}
