//! What the simulated parts and the real ones must both do. The Kubernetes contract runs against a real API
//! server in the cluster tests.

#[cfg(feature = "sim")]
mod autoscaling;
#[cfg(feature = "sim")]
mod kubernetes;

#[cfg(feature = "sim")]
mod simulated_kubernetes {
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

    crate::kubernetes::for_each_contract!(tests);
}
