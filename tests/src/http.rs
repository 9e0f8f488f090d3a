//! A minimal HTTP client.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// A response.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// In lower case.
    pub headers: String,
    /// The same, as they were sent.
    pub head: String,
    /// As text.
    pub body: String,
}

impl Answer {
    /// Values of a header, whose name is in lower case.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.filter_map(move |(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
    }
}

/// The URL of a page without the server's address: path and key.
pub fn path_of(url: &str) -> &str {
    let address = url.find("://").map_or(0, |scheme| scheme + 3);
    url[address..].find('/').map_or("/", |path| &url[address + path..])
}

/// `GET path`
pub fn get(address: &str, path: &str) -> Answer {
    ask(address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n"))
}

/// `GET path`, in this format.
pub fn get_as(address: &str, path: &str, accept: &str) -> Answer {
    ask(address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: {accept}\r\n\r\n"))
}

/// `GET path`, with the access token of somebody.
pub fn get_as_bearer(address: &str, path: &str, access_token: &str) -> Answer {
    get_with(address, path, &format!("Authorization: Bearer {access_token}\r\n"))
}

/// `GET path`, with these lines of the header.
pub fn get_with(address: &str, path: &str, lines: &str) -> Answer {
    ask(address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n{lines}\r\n"))
}

/// `GET path` at a server that is known by another name.
pub fn get_from_host(address: &str, path: &str, host: &str) -> Answer {
    ask(address, &format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n"))
}

/// `POST path` of a form.
pub fn post(address: &str, path: &str, form: &str) -> Answer {
    post_with(address, path, form, "")
}

/// `POST path` of a form, with these lines of the header.
pub fn post_with(address: &str, path: &str, form: &str, lines: &str) -> Answer {
    let kind = "application/x-www-form-urlencoded";
    let length = form.len();
    ask(
        address,
        &format!(
            "POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{lines}\r\n{form}"
        ),
    )
}

fn ask(address: &str, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("it can be set");
    stream.write_all(request.as_bytes()).expect("it takes requests");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("it answers");
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").expect("it speaks HTTP");
    let code = head.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("it speaks HTTP");
    Answer { code, headers: head.to_lowercase(), head: head.to_owned(), body: body.to_owned() }
}
