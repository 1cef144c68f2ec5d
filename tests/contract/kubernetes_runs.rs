//! The contract with a Kubernetes API, run against the simulated cluster and against a real one.

use crate::kubernetes;
use jiff::Timestamp;
use spot_guard::clock::Clock;
use spot_guard::sim::cluster::{Cluster, ResourceKind};

/// The simulated cluster, its controllers running.
fn simulated() -> kube::Client {
    let cluster = Cluster::new(Clock::simulated(Timestamp::UNIX_EPOCH), 1);
    let mut probe = ResourceKind::custom("contract.spotguard.dev", "v1", "Probe", "probes");
    probe.namespaced = true;
    cluster.register_resource(probe);
    tokio::spawn(cluster.clone().run());
    cluster.client()
}

/// A client that hears every answer. By default the library keeps a refusal with 429 to itself, and asks again
/// up to 15 times with growing pauses: an eviction would hang for minutes.
async fn real() -> kube::Client {
    let mut config = kube::Config::infer().await.expect("KUBECONFIG names a cluster");
    config.default_retry = false;
    kube::Client::try_from(config).expect("a client")
}

macro_rules! tests {
    ($($name:ident)*) => {
        mod simulated_kubernetes {
            $(
                #[tokio::test(start_paused = true)]
                async fn $name() {
                    crate::kubernetes::$name(super::simulated()).await;
                }
            )*
        }

        /// Needs the controllers of a real control plane; the kubeconfig is found as kubectl finds it.
        mod real_kubernetes {
            $(
                #[tokio::test]
                #[ignore = "needs a real control plane and KUBECONFIG"]
                async fn $name() {
                    let client = super::real().await;
                    crate::kubernetes::prepare(&client).await;
                    crate::kubernetes::$name(client).await;
                }
            )*
        }
    };
}

kubernetes::for_each_contract!(tests);
