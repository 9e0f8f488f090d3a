//! What tests of collectors share.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

pub type Variables<'a> = &'a [(&'a str, &'a str)];

/// Variables that name this collector, and these.
pub fn variables(endpoint: &str, more: Variables<'_>) -> impl Fn(&str) -> Option<String> {
    move |name: &str| {
        let found = more.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        found.or_else(|| (name == "OTEL_EXPORTER_OTLP_ENDPOINT").then(|| endpoint.to_owned()))
    }
}

/// A collector that speaks HTTP/1.1, and gives these answers (status line and headers, body), the last one for ever.
pub fn http(answers: Vec<(&'static str, Vec<u8>)>) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let (sender, heads) = mpsc::channel();
    let next = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, sender, answers, next) =
                (stream.unwrap(), sender.clone(), answers.clone(), Arc::clone(&next));
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") {
                        if reader.read_line(&mut head).unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let lower = head.to_lowercase();
                    let length = lower.lines().find_map(|it| it.strip_prefix("content-length: "));
                    let mut body = vec![0; length.map_or(0, |it| it.parse().unwrap())];
                    reader.read_exact(&mut body).unwrap();
                    let _ = sender.send(head);
                    let at = next.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
                    let (status, body) = &answers[at];
                    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
                    stream.write_all(head.as_bytes()).unwrap();
                    stream.write_all(body).unwrap();
                }
            });
        }
    });
    (url, heads)
}
