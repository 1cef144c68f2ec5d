//! The instance metadata service, version 2 (EC2 User Guide, "Use the Instance Metadata Service").

use super::activity::seconds;
use super::describe::ACCOUNT;
use super::handle::Cloud;
use super::spec::ImdsMode;
use super::state::{Instance, State, after, hex, region_of, zone_id};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use jiff::Timestamp;
use std::time::Duration;

const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
/// Longest life of a session token, seconds.
const TTL_MAX: u64 = 21_600;

impl Cloud {
    /// Answers one request to the metadata service of an instance. Without an answer (a machine that does not
    /// run, [`ImdsMode::Silent`]) this never ends; the caller's timeout has to.
    pub async fn handle_imds(&self, instance_id: &str, request: Request<Bytes>) -> Response<Bytes> {
        match self.with(|state, now| state.answer_imds(instance_id, &request, now)) {
            Some(response) => response,
            None => std::future::pending().await,
        }
    }
}

impl State {
    fn answer_imds(&mut self, id: &str, request: &Request<Bytes>, now: Timestamp) -> Option<Response<Bytes>> {
        let fresh_token = hex(&mut self.token_rng, 56);
        let instance = self.instances.get_mut(id).filter(|instance| instance.machine_runs)?;
        match instance.imds_mode {
            ImdsMode::Normal | ImdsMode::RestlessNoticeTime => {}
            ImdsMode::Garbage => return Some(garbage(request.method(), &fresh_token)),
            ImdsMode::Unauthorized if *request.method() != Method::PUT => {
                return Some(status(StatusCode::UNAUTHORIZED));
            }
            ImdsMode::Unauthorized => {}
            ImdsMode::Status(code) => {
                return Some(status(StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)));
            }
            // As kiam: a proxy that knows no metadata but credentials.
            ImdsMode::Proxy { gives_token: true } if *request.method() == Method::PUT => {}
            ImdsMode::Proxy { .. } => return Some(status(StatusCode::NOT_FOUND)),
            ImdsMode::Silent => return None,
            ImdsMode::Disabled403 => return Some(status(StatusCode::FORBIDDEN)),
        }
        let path = request.uri().path();
        if *request.method() == Method::PUT && path == "/latest/api/token" {
            return Some(give_token(instance, request, fresh_token, now));
        }
        if *request.method() != Method::GET {
            return Some(status(StatusCode::METHOD_NOT_ALLOWED));
        }
        let token = request.headers().get(TOKEN_HEADER).and_then(|value| value.to_str().ok());
        let valid = token.and_then(|token| instance.imds_tokens.get(token)).is_some_and(|until| now < *until);
        if !valid {
            return Some(status(StatusCode::UNAUTHORIZED));
        }
        Some(match self.metadata(id, path, now) {
            Some(text) => Response::new(Bytes::from(text)),
            None => status(StatusCode::NOT_FOUND),
        })
    }

    fn metadata(&self, id: &str, path: &str, now: Timestamp) -> Option<String> {
        let instance = self.instances.get(id)?;
        let spec = &self.groups.get(&instance.group)?.spec;
        let region = region_of(&instance.zone);
        if path.trim_end_matches('/') == "/latest/dynamic/instance-identity/document" {
            let document = serde_json::json!({
                "accountId": ACCOUNT,
                "architecture": "x86_64",
                "availabilityZone": instance.zone,
                "imageId": "ami-00000000000000001",
                "instanceId": instance.id,
                "instanceType": spec.instance_type,
                "pendingTime": seconds(instance.launched_at),
                "privateIp": instance.address,
                "region": region,
                "version": "2017-09-30",
            });
            return serde_json::to_string_pretty(&document).ok();
        }
        let item = path.strip_prefix("/latest/meta-data/")?.trim_end_matches('/');
        Some(match item {
            "events/recommendations/rebalance" => {
                let restless = instance.imds_mode == ImdsMode::RestlessNoticeTime;
                let at = instance.rebalance_at.map(|at| if restless { now } else { at })?;
                format!("{{\"noticeTime\": \"{}\"}}", seconds(at))
            }
            "spot/instance-action" => {
                let at = instance.interrupt_at?;
                format!("{{\"action\": \"terminate\", \"time\": \"{}\"}}", seconds(at))
            }
            "spot/termination-time" => seconds(instance.interrupt_at?),
            "events/maintenance/scheduled" => scheduled_events(instance),
            // Not there yet on a brand-new instance.
            "autoscaling/target-lifecycle-state" if now <= instance.launched_at => return None,
            "autoscaling/target-lifecycle-state" if instance.state.is_ending() => "Terminated".to_owned(),
            "autoscaling/target-lifecycle-state" => "InService".to_owned(),
            "instance-life-cycle" => instance.market.life_cycle().to_owned(),
            "instance-id" => instance.id.clone(),
            "instance-type" => spec.instance_type.clone(),
            "local-hostname" | "hostname" => instance.node_name.clone(),
            "local-ipv4" => instance.address.clone(),
            "placement/availability-zone" => instance.zone.clone(),
            "placement/availability-zone-id" => zone_id(&instance.zone),
            "placement/region" => region.to_owned(),
            _ => return None,
        })
    }
}

/// The list of an instance's scheduled events (EC2 User Guide, "Scheduled events for your instances").
fn scheduled_events(instance: &Instance) -> String {
    let Some(at) = instance.maintenance_at else { return "[]".to_owned() };
    let time = |at: Timestamp| at.strftime("%-d %b %Y %H:%M:%S GMT").to_string();
    let event = serde_json::json!({
        "NotBefore": time(at),
        "Code": "instance-stop",
        "Description": "The instance is running on degraded hardware",
        "EventId": "instance-event-0d59937288b749b32",
        "NotAfter": time(after(at, Duration::from_secs(7200))),
        "State": "active",
    });
    serde_json::json!([event]).to_string()
}

fn give_token(
    instance: &mut Instance,
    request: &Request<Bytes>,
    token: String,
    now: Timestamp,
) -> Response<Bytes> {
    if request.headers().contains_key("x-forwarded-for") {
        return status(StatusCode::FORBIDDEN);
    }
    let ttl = request.headers().get(TTL_HEADER).and_then(|value| value.to_str().ok());
    let ttl = ttl.and_then(|text| text.parse::<u64>().ok()).filter(|ttl| (1..=TTL_MAX).contains(ttl));
    let Some(ttl) = ttl else { return status(StatusCode::BAD_REQUEST) };
    instance.imds_tokens.retain(|_, until| now < *until);
    instance.imds_tokens.insert(token.clone(), after(now, Duration::from_secs(ttl)));
    with_ttl(token, ttl)
}

fn with_ttl(token: String, ttl: u64) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(token));
    response.headers_mut().insert(TTL_HEADER, HeaderValue::from(ttl));
    response
}

/// A token that works and metadata that is none, as a captive proxy would give.
fn garbage(method: &Method, token: &str) -> Response<Bytes> {
    if *method == Method::PUT {
        return with_ttl(token.to_owned(), TTL_MAX);
    }
    Response::new(Bytes::from_static(b"<html><body>{\"noticeTime\": 42</body>\xff\xfe"))
}

fn status(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}
