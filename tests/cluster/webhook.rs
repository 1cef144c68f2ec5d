//! A chat's webhook that remembers what it is told.

use actix_web::{App, HttpResponse, HttpServer, web};
use serde::Deserialize;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Deserialize)]
struct Message {
    text: String,
}

pub struct Webhook {
    url: String,
    heard: Arc<Mutex<Vec<String>>>,
    server: actix_web::dev::ServerHandle,
}

impl Webhook {
    pub fn start() -> Self {
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let told = heard.clone();
        let hear = move |message: web::Json<Message>| {
            told.lock().unwrap_or_else(PoisonError::into_inner).push(message.into_inner().text);
            std::future::ready(HttpResponse::Ok().finish())
        };
        let server = HttpServer::new(move || App::new().route("/hook", web::post().to(hear.clone())))
            .workers(1)
            .disable_signals()
            .bind("127.0.0.1:0")
            .expect("a port");
        let url = format!("http://{}/hook", server.addrs()[0]);
        let server = server.run();
        let handle = server.handle();
        actix::spawn(server);
        Self { url, heard, server: handle }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The texts, in the order in which they came.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        drop(self.server.stop(false));
    }
}
