//! The Auto Scaling contract, kept by an implementation that others wrote: moto_server, on what it covers.

use crate::autoscaling;
use crate::helpers::wait_for;
use crate::process::{Folder, LOOPBACK, Process, free_port, made_by};
use crate::product::PATIENCE;
use aws_sdk_autoscaling::Client;
use aws_sdk_autoscaling::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_autoscaling::types::Tag;
use std::path::Path;
use std::process::Command;

/// Starts moto_server, and gives its endpoint. It tells if it could not be installed.
pub async fn start(folder: &Path) -> Option<(Process, String)> {
    let packages = made_by("testbed/moto", &[])?;
    let port = free_port();
    let mut command = Command::new("python3");
    command.args(["-m", "moto.server", "-H", LOOPBACK, "-p", &port.to_string()]).env("PYTHONPATH", packages);
    let mut moto = Process::start("moto_server", command, folder).expect("moto_server starts");
    wait_for("moto_server to listen", PATIENCE, async || {
        moto.check_alive().expect("moto_server runs");
        tokio::net::TcpStream::connect((LOOPBACK, port)).await.ok()
    })
    .await;
    Some((moto, format!("http://{LOOPBACK}:{port}")))
}

#[tokio::test]
async fn moto_keeps_it() {
    let folder = Folder::create("moto").expect("a folder");
    let Some((_moto, endpoint)) = start(folder.path()).await else { return };
    let config = aws_sdk_autoscaling::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("a", "b", None, None, "contract"))
        .endpoint_url(endpoint);
    let client = Client::from_conf(config.build());
    let template = client.create_launch_configuration().launch_configuration_name("contract");
    let template = template.image_id("ami-12c6146b").instance_type("m5.xlarge");
    template.send().await.expect("launch configuration");
    for name in autoscaling::GROUPS {
        let tag = Tag::builder().key("pool").value(name).resource_id(name);
        let tag = tag.resource_type("auto-scaling-group").propagate_at_launch(true).build();
        let create = client.create_auto_scaling_group().auto_scaling_group_name(name);
        let create = create.launch_configuration_name("contract").min_size(0).max_size(4).desired_capacity(2);
        let create = create.availability_zones("us-east-1a").availability_zones("us-east-1b").tags(tag);
        create.send().await.expect("group");
    }
    autoscaling::common(&client).await;
    for name in autoscaling::GROUPS {
        let delete = client.delete_auto_scaling_group().auto_scaling_group_name(name).force_delete(true);
        delete.send().await.expect("delete");
    }
    let delete = client.delete_launch_configuration().launch_configuration_name("contract");
    delete.send().await.expect("delete");
}
