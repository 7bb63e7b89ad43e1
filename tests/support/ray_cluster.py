"""A Ray cluster of three nodes on this machine; a process of its own, told what to do by lines.

    python tests/support/ray_cluster.py CPUS
    ← {"address": "127.0.0.1:…", "metrics": […], "logs": "/tmp/ray/session…"}
    → kill 0        a node and all its processes, at once
    → behead        the head's store of the cluster's state
    → (end of file)  everything else

The head has no CPUs, so that replicas are on the other two; proxies may be on it.
"""

from __future__ import annotations

import json
import sys

from ray.cluster_utils import Cluster


def main() -> None:
    cpus = int(sys.argv[1])
    # Whoever reaches Ray's ports can run code here, so nobody but this machine shall.
    small = {"object_store_memory": 80 << 20, "node_ip_address": "127.0.0.1"}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, **small},
    )
    nodes = [cluster.add_node(num_cpus=cpus, wait=False, **small) for _ in range(2)]
    cluster.wait_for_nodes(60)
    said = {
        "address": cluster.address,
        "metrics": [node.metrics_export_port for node in nodes],
        "logs": cluster.head_node.get_session_dir_path(),
    }
    print(json.dumps(said), flush=True)
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "kill":
            cluster.remove_node(nodes[int(rest[0])], allow_graceful=False)
        elif word == "behead":
            cluster.head_node.kill_gcs_server()
        print(json.dumps({"done": word}), flush=True)
    # A head that was beheaded cannot end its nodes in order.
    for node in cluster.list_all_nodes():
        node.kill_all_processes(check_alive=False, allow_graceful=False)


if __name__ == "__main__":
    main()
