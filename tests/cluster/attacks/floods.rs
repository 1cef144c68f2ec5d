//! Floods: one agent's token and as many notices as it can store cost the others nothing that they notice.

use super::agents::{Site, says};
use crate::helpers::wait_for;
use crate::product::{CONTROLLER_MEMORY, PATIENCE};
use futures::StreamExt;
use kube::api::{Api, ListParams};
use spot_guard::crd::{InterruptionNotice, NodeReplacement, notice_name};
use spot_guard_cloud::cloud::InstanceSnapshot;
use spot_guard_core::notices::MAX_NODE_NAME;
use spot_guard_core::record::NoticeKind;
use std::time::Duration;
use tokio::time::Instant;

const KIND: NoticeKind = NoticeKind::RebalanceRecommendation;
/// So many notices are stored by one token, as fast as the API server takes them.
const FLOOD: usize = 2_000;

/// From the notice of a node until its record is stored.
async fn latency(site: &Site, of: &InstanceSnapshot) -> Duration {
    let records: Api<NodeReplacement> = Api::all(site.testbed.client());
    let name = notice_name(&of.node_name.as_str().into(), &of.id.as_str().into(), KIND);
    let began = Instant::now();
    let told = says(&name, &of.node_name, &of.id, KIND, None);
    assert_eq!(site.agents.post(&of.node_name, &told).await, 201);
    wait_for("the record", PATIENCE, async || records.get_opt(&of.id).await.ok()?).await;
    began.elapsed()
}

#[actix::test]
async fn a_flood_of_notices_by_one_token_delays_no_other_node() {
    let site = Site::set_up("flood", 3).await;
    let quiet = latency(&site, &site.instances[0]).await;
    let before = site.controller.process.memory();

    let flooder = "f".repeat(MAX_NODE_NAME);
    let (agents, node) = (site.agents.clone(), flooder.clone());
    let flood = actix::spawn(async move {
        let posts = futures::stream::iter(0..FLOOD).map(|number| {
            let instance = format!("i-{number:017x}");
            let name = notice_name(&node.as_str().into(), &instance.as_str().into(), KIND);
            let mut told = says(&name, &node, &instance, KIND, None);
            told["spec"]["traceparent"] = "0".repeat(55).into();
            let (agents, node) = (agents.clone(), node.clone());
            async move { agents.post(&node, &told).await }
        });
        posts.buffer_unordered(16).filter(|status| std::future::ready(*status == 201)).count().await
    });
    let notices: Api<InterruptionNotice> = Api::all(site.testbed.client());
    wait_for("the flood", PATIENCE, async || {
        let page = notices.list(&ListParams::default().limit(100)).await.ok()?;
        (page.items.len() > 50 || flood.is_finished()).then_some(())
    })
    .await;
    let loud = latency(&site, &site.instances[1]).await;
    let under_way = !flood.is_finished();
    let stored = flood.await.expect("the flood ends");
    let peak = site.controller.process.memory();
    let began = Instant::now();
    wait_for("the flood to be removed", Duration::from_secs(120), async || {
        let held = notices.list(&ListParams::default()).await.ok()?.items;
        let left = held.iter().filter(|notice| notice.spec.node_name == flooder).count();
        (left == 0).then_some(())
    })
    .await;
    println!(
        "recorded after {quiet:?}, and in a flood of {stored} notices (under way: {under_way}) after {loud:?}; the \
         flood was removed {:?} after its end; the controller's memory: {} MB before, {} MB at its end, {} MB after",
        began.elapsed(),
        before >> 20,
        peak >> 20,
        site.controller.process.memory() >> 20
    );
    assert!(stored > FLOOD / 2, "{stored} notices are no flood");
    assert!(loud < quiet + Duration::from_secs(1), "{quiet:?} without, {loud:?} with the flood");
    assert!(peak < CONTROLLER_MEMORY, "{peak} bytes");
    site.ends_well().await;
}
