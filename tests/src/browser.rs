//! A browser as far as sign-in needs one: it keeps cookies by host, and follows redirects.

use std::collections::BTreeMap;

use crate::http::{self, Answer};

/// Maximum number of redirects.
const REDIRECTS: usize = 10;

/// A browser.
#[derive(Debug, Default, Clone)]
pub struct Browser {
    /// By host and name.
    cookies: BTreeMap<(String, String), String>,
    /// Hosts by whose other address they are reached.
    hosts: BTreeMap<String, String>,
}

/// A page that was opened.
#[derive(Debug)]
pub struct Page {
    /// Host and port.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// The answer.
    pub answer: Answer,
}

impl Browser {
    /// Reaches `host:port` at another address, as by a proxy.
    #[must_use]
    pub fn with_host(mut self, host: &str, address: &str) -> Self {
        self.hosts.insert(host.to_owned(), address.to_owned());
        self
    }

    /// The value of a cookie.
    pub fn cookie(&self, host: &str, name: &str) -> Option<&str> {
        self.cookies.get(&(self.address(host), name.to_owned())).map(String::as_str)
    }

    /// Opens an address, without redirects.
    pub fn get(&mut self, host: &str, path: &str) -> Page {
        let address = self.address(host);
        let answer = http::get_with(&address, path, &self.header(&address));
        self.opened(address, path, answer)
    }

    /// Sends a form, without redirects.
    pub fn post(&mut self, host: &str, path: &str, form: &str) -> Page {
        let address = self.address(host);
        let answer = http::post_with(&address, path, form, &self.header(&address));
        self.opened(address, path, answer)
    }

    /// Follows the redirects of a page until one leads to this path.
    ///
    /// # Panics
    /// There is no end.
    pub fn follow(&mut self, mut page: Page, until: &str) -> Page {
        for _ in 0..REDIRECTS {
            let Some((host, path)) = page.leads_to() else { return page };
            if path.starts_with(until) {
                return page;
            }
            page = self.get(&host, &path);
        }
        panic!("too many redirects: {page:?}")
    }

    fn address(&self, host: &str) -> String {
        self.hosts.get(host).map_or(host, String::as_str).to_owned()
    }

    fn header(&self, address: &str) -> String {
        let own = self.cookies.iter().filter(|((host, _), _)| host == address);
        let pairs: Vec<String> = own.map(|((_, name), value)| format!("{name}={value}")).collect();
        if pairs.is_empty() { String::new() } else { format!("Cookie: {}\r\n", pairs.join("; ")) }
    }

    fn opened(&mut self, address: String, path: &str, answer: Answer) -> Page {
        for cookie in answer.values("set-cookie") {
            let (pair, rules) = cookie.split_once(';').unwrap_or((cookie, ""));
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = (address.clone(), name.to_owned());
            if rules.contains("Max-Age=0") || rules.contains("expires=Thu, 01 Jan 1970") {
                self.cookies.remove(&key);
            } else {
                self.cookies.insert(key, value.to_owned());
            }
        }
        Page { host: address, path: path.to_owned(), answer }
    }
}

impl Page {
    /// Host and path to which it redirects.
    pub fn leads_to(&self) -> Option<(String, String)> {
        let to = self.answer.values("location").next()?;
        Some(match to.split_once("://") {
            None => (self.host.clone(), to.to_owned()),
            Some((_, rest)) => {
                let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
                (host.to_owned(), format!("/{path}"))
            }
        })
    }
}
