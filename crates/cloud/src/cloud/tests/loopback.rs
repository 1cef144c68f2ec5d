//! The same over real sockets and real time.

use super::*;
use aws_config::imds;
use aws_sdk_autoscaling::config::{BehaviorVersion, Credentials, Region};
use std::net::TcpListener;

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

#[tokio::test]
async fn the_real_clients_work_over_sockets() {
    let cloud = Cloud::new(CloudClock::System, 7);
    let boot = BootTimes {
        launch: Duration::from_millis(50),
        node_join: Duration::from_millis(10),
        node_ready: Duration::from_millis(10),
    };
    cloud.add_group(GroupSpec { boot, ..spot() });
    cloud.configure(|settings| settings.reaction = Duration::from_millis(10));
    let mut events = cloud.subscribe();
    let run = tokio::spawn(cloud.clone().run(Arc::new(NullHost)));

    let server = cloud.serve_autoscaling(listener()).unwrap();
    let config = aws_sdk_autoscaling::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("a", "b", None, None, "test"))
        .endpoint_url(server.url())
        .build();
    let client = Client::from_conf(config);
    let call = client.set_desired_capacity().auto_scaling_group_name("spot");
    call.desired_capacity(3).send().await.unwrap();
    let ready = async { while events.recv().await.unwrap().kind != EventKind::NodeReady {} };
    tokio::time::timeout(Duration::from_secs(20), ready).await.unwrap();
    let groups = client.describe_auto_scaling_groups().send().await.unwrap();
    assert_eq!(groups.auto_scaling_groups()[0].instances().len(), 3);

    let id = groups.auto_scaling_groups()[0].instances()[0].instance_id().unwrap().to_owned();
    let metadata = cloud.serve_imds(&id, listener()).unwrap();
    let imds = imds::Client::builder().endpoint(metadata.url()).unwrap().build();
    let body = imds.get("/latest/meta-data/instance-id").await.unwrap();
    assert_eq!(body.as_ref(), id);

    server.stop().await;
    metadata.stop().await;
    let call = client.describe_auto_scaling_groups();
    assert!(tokio::time::timeout(Duration::from_secs(20), call.send()).await.unwrap().is_err());
    run.abort();
}
