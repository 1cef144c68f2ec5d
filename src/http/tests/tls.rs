//! The main port with a certificate.

use super::super::TlsConfig;
use super::*;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::Path;

/// Writes a fresh certificate for localhost, and returns it.
fn renew(folder: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("tls.crt"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    made.cert.pem()
}

fn files(folder: &Path) -> TlsConfig {
    TlsConfig { certificate: folder.join("tls.crt"), key: folder.join("tls.key") }
}

#[actix_web::test]
async fn the_main_port_speaks_tls_and_takes_up_a_renewed_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let first = renew(folder.path());
    let certificate = Certificate::load(&files(folder.path())).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let reviews = Arc::new(Reviews::new(nobody(), Arc::new(Metrics::new())));
    let door = Door::Main { reviews, tls: Some(certificate.clone()) };
    let server = serve(listener, door, Fixture::empty().state().await).unwrap();
    let handle = server.handle();
    let running = actix_web::rt::spawn(server);

    // A client that trusts this certificate and nothing else.
    let ask = async |scheme: &'static str, path: &'static str, trusted: &str| {
        let trusted = reqwest::Certificate::from_pem(trusted.as_bytes()).unwrap();
        web::block(move || {
            let client =
                reqwest::blocking::Client::builder().no_proxy().tls_certs_only([trusted]).build().unwrap();
            client
                .get(format!("{scheme}://localhost:{port}{path}"))
                .send()
                .map(|answer| answer.status().as_u16())
        })
        .await
        .unwrap()
    };
    assert_eq!(ask("https", "/docs", &first).await.unwrap(), 200);
    assert_eq!(ask("https", "/api/v1/pools", &first).await.unwrap(), 401);
    assert!(ask("http", "/docs", &first).await.is_err(), "and nothing but TLS");

    // Half of a change is none.
    std::fs::write(folder.path().join("tls.key"), "").unwrap();
    certificate.look();
    assert_eq!(ask("https", "/docs", &first).await.unwrap(), 200);
    let second = renew(folder.path());
    assert!(ask("https", "/docs", &second).await.is_err());
    certificate.look();
    assert_eq!(ask("https", "/docs", &second).await.unwrap(), 200);
    assert!(ask("https", "/docs", &first).await.is_err());
    handle.stop(true).await;
    running.await.unwrap().unwrap();
}

#[actix_web::test]
async fn a_crowd_of_handshakes_keeps_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = renew(folder.path());
    let certificate = Certificate::load(&files(folder.path())).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let reviews = Arc::new(Reviews::new(nobody(), Arc::new(Metrics::new())));
    let state = Fixture::empty().state().await;
    let metrics = state.metrics.clone();
    let server = serve(listener, Door::Main { reviews, tls: Some(certificate) }, state).unwrap();
    let handle = server.handle();
    let running = actix_web::rt::spawn(server);
    let crowd = web::block(move || {
        let connect = |_| std::net::TcpStream::connect(address).unwrap();
        (0..400).map(connect).collect::<Vec<_>>()
    });
    let crowd = crowd.await.unwrap();
    let asked = web::block(move || {
        let trusted = reqwest::Certificate::from_pem(trusted.as_bytes()).unwrap();
        let client =
            reqwest::blocking::Client::builder().no_proxy().tls_certs_only([trusted]).build().unwrap();
        let began = std::time::Instant::now();
        let url = format!("https://localhost:{}/docs", address.port());
        (client.get(url).send().unwrap().status().as_u16(), began.elapsed())
    });
    let (status, took) = asked.await.unwrap();
    assert_eq!(status, 200);
    assert!(took < Duration::from_secs(2), "{took:?}");
    let nothing: (&[NodeReplacement], &[SpotPool]) = (&[], &[]);
    let text = metrics.encode(false, &Readiness::default(), nothing.0, nothing.1).unwrap();
    let counted = "spot_guard_http_connections_ended_total{listener=\"Api\",reason=\"MadeRoom\"} ";
    let ended = text.split(counted).nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
    assert!(ended.is_some_and(|ended: usize| ended >= 150), "{text}");
    drop(crowd);
    handle.stop(true).await;
    running.await.unwrap().unwrap();
}

#[actix_web::test]
async fn what_is_no_http_is_refused_in_full_inside_tls_and_what_is_no_tls_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = renew(folder.path());
    let certificate = Certificate::load(&files(folder.path())).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let state = Fixture::empty().state().await;
    let metrics = state.metrics.clone();
    let reviews = Arc::new(Reviews::new(nobody(), Arc::new(Metrics::new())));
    let server = serve(listener, Door::Main { reviews, tls: Some(certificate) }, state).unwrap();
    let handle = server.handle();
    let running = actix_web::rt::spawn(server);

    let told = web::block(move || {
        let tcp = || {
            let tcp = std::net::TcpStream::connect(address).unwrap();
            tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            tcp
        };
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client =
            rustls::ClientConnection::new(Arc::new(client), "localhost".try_into().unwrap()).unwrap();
        let mut inside = rustls::StreamOwned::new(client, tcp());
        inside.write_all(b"NONSENSE\r\n\r\n").unwrap();
        let mut told = String::new();
        inside.read_to_string(&mut told).unwrap();

        let mut plain = tcp();
        plain.write_all(b"GET /docs HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let mut alert = Vec::new();
        plain.read_to_end(&mut alert).unwrap();
        assert_eq!(alert.first(), Some(&21), "an alert of TLS: {alert:?}");
        told
    })
    .await
    .unwrap();
    assert!(told.starts_with("HTTP/1.1 400 ") && told.contains(r#""reason":"RequestUnreadable""#), "{told}");
    let nothing: (&[NodeReplacement], &[SpotPool]) = (&[], &[]);
    let text = metrics.encode(false, &Readiness::default(), nothing.0, nothing.1).unwrap();
    let counted = "spot_guard_http_connections_ended_total{listener=\"Api\",reason=\"Unreadable\"} 2\n";
    assert!(text.contains(counted), "{text}");
    handle.stop(true).await;
    running.await.unwrap().unwrap();
}

#[actix_web::test]
async fn files_are_read_again_by_themselves() {
    tokio::time::pause();
    let folder = tempfile::tempdir().unwrap();
    renew(folder.path());
    let certificate = Certificate::load(&files(folder.path())).unwrap();
    let follows = certificate.clone();
    let task = actix_web::rt::spawn(async move { follows.follow().await });
    let before = certificate.digest();
    renew(folder.path());
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_ne!(certificate.digest(), before);
    task.abort();
}

#[test]
fn what_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |what: &str| {
        let error = format!("{:#}", Certificate::load(&files(folder.path())).unwrap_err());
        assert!(error.contains(what), "{what:?} in {error}");
    };
    refused("tls.certificate: cannot read");
    std::fs::write(folder.path().join("tls.crt"), "").unwrap();
    refused("tls.key: cannot read");
    std::fs::write(folder.path().join("tls.key"), "").unwrap();
    refused("tls.certificate: there is no certificate");
    renew(folder.path());
    let key = std::fs::read(folder.path().join("tls.key")).unwrap();
    renew(folder.path());
    std::fs::write(folder.path().join("tls.key"), key).unwrap();
    refused("tls.key");
}
