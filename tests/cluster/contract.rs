//! What Spot Guard relies on in a Kubernetes API, asked of a real one: the same functions that the simulated
//! API has to pass (`tests/contract`).

use crate::kubernetes;
use crate::testbed::Testbed;
use futures::FutureExt;
use futures::future::{LocalBoxFuture, join_all};
use std::panic::AssertUnwindSafe;

type Contract = fn(kube::Client) -> LocalBoxFuture<'static, ()>;

macro_rules! list {
    ($($name:ident)*) => {
        const CONTRACTS: &[(&str, Contract)] =
            &[$((stringify!($name), |client| Box::pin(kubernetes::$name(client)))),*];
    };
}
kubernetes::for_each_contract!(list);

#[tokio::test]
async fn a_real_api_server_keeps_the_contract_that_the_simulated_one_keeps() {
    let testbed = Testbed::start_without_kubelets("contract").await;
    kubernetes::prepare(&testbed.client()).await;
    let outcomes = CONTRACTS.iter().map(async |(name, contract)| {
        let outcome = AssertUnwindSafe(contract(testbed.client())).catch_unwind().await;
        outcome.is_err().then_some(*name)
    });
    let broken: Vec<&str> = join_all(outcomes).await.into_iter().flatten().collect();
    assert!(broken.is_empty(), "not kept: {broken:?}; each has told why above");
}
