//! The SDK's own settings, with one change: what is on the instance itself is never asked through a proxy.
//!
//! The SDK's HTTP client takes its proxies from the environment. With HTTP_PROXY and without NO_PROXY it
//! would ask the proxy for the instance's Region and credentials: the proxy would answer for another machine,
//! or not at all.

use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, ConnectorBuilder};
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use http::Uri;
use std::net::{IpAddr, Ipv6Addr};

/// Region, endpoint, credentials and proxy, as the environment gives them.
pub async fn load() -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest()).http_client(ByDistance::new()).load().await
}

/// Asks the instance itself directly, and all else as the environment says.
#[derive(Debug)]
struct ByDistance {
    near: SharedHttpClient,
    far: SharedHttpClient,
}

impl ByDistance {
    fn new() -> Self {
        // As the SDK's default client, which has no setting for it.
        let far = Builder::new().build_with_connector_fn(|settings, components| {
            let provider = tls::Provider::Rustls(CryptoMode::AwsLc);
            let mut builder = ConnectorBuilder::default().tls_provider(provider);
            builder.set_connector_settings(settings.cloned());
            if let Some(components) = components {
                builder.set_sleep_impl(components.sleep_impl());
            }
            builder.proxy_config(ProxyConfig::from_env()).build()
        });
        // Without a proxy, and without TLS.
        Self { near: Builder::new().build_http(), far }
    }
}

impl HttpClient for ByDistance {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Connectors {
            near: self.near.http_connector(settings, components),
            far: self.far.http_connector(settings, components),
        })
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.far.connector_metadata()
    }
}

#[derive(Debug)]
struct Connectors {
    near: SharedHttpConnector,
    far: SharedHttpConnector,
}

impl HttpConnector for Connectors {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        if is_near(request.uri()) { self.near.call(request) } else { self.far.call(request) }
    }
}

/// Whether the address is on the instance itself: its metadata service, the credentials of its containers,
/// its loopback (EC2 User Guide, "Access instance metadata"; AWS SDKs and Tools Reference Guide, "Container
/// credential provider": 169.254.170.2, 169.254.170.23 and fd00:ec2::23). All of them speak plain HTTP.
fn is_near(address: &str) -> bool {
    let Ok(address) = address.parse::<Uri>() else { return false };
    let host = address.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let is_of_instance = match host.parse() {
        Ok(IpAddr::V4(host)) => host.is_loopback() || host.is_link_local(),
        Ok(IpAddr::V6(host)) => host.is_loopback() || host.is_unicast_link_local() || is_of_ec2(host),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    };
    address.scheme_str() == Some("http") && is_of_instance
}

/// fd00:ec2::/32, the local services of EC2.
fn is_of_ec2(host: Ipv6Addr) -> bool {
    host.segments()[..2] == [0xfd00, 0xec2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_the_instance_itself_is_near() {
        for near in [
            "http://169.254.169.254/latest/api/token",
            "http://[fd00:ec2::254]/latest/meta-data/instance-id",
            "http://169.254.170.2/v2/credentials/1",
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials",
            "http://127.0.0.1:1338/latest/api/token",
            "http://[::1]:1338/",
            "http://localhost:1338/",
        ] {
            assert!(is_near(near), "{near}");
        }
        for far in [
            "https://autoscaling.us-east-1.amazonaws.com/",
            "http://autoscaling.us-east-1.amazonaws.com/",
            "https://sts.us-east-1.amazonaws.com/",
            "http://10.0.0.1/",
            "http://[fd00:ec3::254]/",
            "http://169.254.169.254.nip.io/",
            "https://localhost/",
            "nonsense",
            "",
        ] {
            assert!(!is_near(far), "{far}");
        }
    }
}
