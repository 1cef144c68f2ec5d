//! The contract with a Kubernetes API, run against the simulated cluster; the cluster tests run it against a
//! real one.

use crate::kubernetes;
use jiff::Timestamp;
use spot_guard_cloud::clock::CloudClock;
use spot_guard_cloud::cluster::{Cluster, ResourceKind};

/// The simulated cluster, its controllers running.
fn simulated() -> kube::Client {
    let cluster = Cluster::new(CloudClock::simulated(Timestamp::UNIX_EPOCH), 1);
    let mut probe = ResourceKind::custom("contract.spotguard.dev", "v1", "Probe", "probes");
    probe.namespaced = true;
    cluster.register_resource(probe);
    // As with RBAC: who is given nothing may do nothing.
    cluster.set_policy(|by, _| by.groups.iter().any(|group| group == "system:masters"));
    tokio::spawn(cluster.clone().run());
    cluster.client()
}

/// One test per function of the contract.
macro_rules! tests {
    ($($name:ident)*) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $name() {
                crate::kubernetes::$name(simulated()).await;
            }
        )*
    };
}

kubernetes::for_each_contract!(tests);
