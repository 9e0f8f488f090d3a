//! Links to jobs' web pages. A link's key is a time, and a MAC over it and the job's id under a secret of the state
//! folder, so every server there makes and accepts the same ones. It grants access to the page until then, and to nothing
//! else.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use axum::http::HeaderMap;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use sqlflow_job::JobId;
use sqlflow_os::clock;

use super::cookies;

/// Bytes of the secret, and of a key's MAC.
const SECRET_BYTES: usize = 32;
const MAC_BYTES: usize = 16;
/// Hexadecimal digits of a key's time, in seconds since the Unix epoch.
const TIME_DIGITS: usize = 8;
/// Name of a cookie that remembers a page's link.
const COOKIE: &str = "sqlflow_page";
/// Maximum lifetime of a key for a visitor who needs none: the address of a page is easily shared.
const VISIT: Duration = Duration::from_secs(12 * 3600);

/// Purposes of MACs.
const LINK: &[u8] = b"job page until ";
const REMEMBERED: &[u8] = b"job page remembered until ";

/// Makes and verifies links.
#[derive(Clone)]
pub struct Links {
    secret: [u8; SECRET_BYTES],
    public_url: String,
    lifetime: Duration,
}

impl Links {
    /// Reads the secret from this file, or creates it. `public_url` is this server's address for browsers. Its links are
    /// valid for `lifetime`.
    ///
    /// # Errors
    /// The file can be neither read nor created, or has other content.
    pub fn open(file: &Path, public_url: &str, lifetime: Duration) -> io::Result<Self> {
        let secret = match fs::read(file) {
            Ok(secret) => secret,
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_secret(file)?,
            Err(error) => return Err(error),
        };
        let secret = secret
            .try_into()
            .map_err(|_| io::Error::other(format!("{} is damaged; remove it", file.display())))?;
        Ok(Self { secret, public_url: public_url.trim_end_matches('/').to_owned(), lifetime })
    }

    /// Derives 32 bytes from these parts, which cannot be made without the secret. Each purpose has its own.
    #[must_use]
    pub fn derive(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        self.mac_of(purpose, parts).finalize().into_bytes().into()
    }

    /// Whether these bytes were derived from these parts. Takes the same time for all wrong ones.
    #[must_use]
    pub fn derives(&self, purpose: &str, parts: &[&[u8]], bytes: &[u8]) -> bool {
        self.mac_of(purpose, parts).verify_slice(bytes).is_ok()
    }

    fn mac_of(&self, purpose: &str, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("any length will do");
        // With their lengths, two different lists of parts never become the same bytes.
        for part in std::iter::once(purpose.as_bytes()).chain(parts.iter().copied()) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }

    /// Address of this path on this server, for browsers.
    #[must_use]
    pub fn address(&self, path: &str) -> String {
        format!("{}{path}", self.public_url)
    }

    /// Whether browsers find this server by HTTPS.
    #[must_use]
    pub fn are_encrypted(&self) -> bool {
        self.public_url.starts_with("https://")
    }

    /// Host of this server's address for browsers, perhaps with a port.
    #[must_use]
    pub fn host(&self) -> &str {
        let address =
            self.public_url.split_once("://").map_or(self.public_url.as_str(), |(_, address)| address);
        address.split('/').next().unwrap_or_default()
    }

    /// The MAC over a purpose, a job and the digits of a time.
    fn mac(&self, purpose: &[u8], job: &JobId, until: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("any length will do");
        mac.update(purpose);
        mac.update(until.as_bytes());
        mac.update(job.as_str().as_bytes());
        mac
    }

    /// Key of a job's page, valid for the lifetime of links.
    #[must_use]
    pub fn key(&self, job: &JobId) -> String {
        self.sealed(LINK, job, now_seconds().saturating_add(self.lifetime.as_secs()))
    }

    fn sealed(&self, purpose: &[u8], job: &JobId, seconds: u64) -> String {
        let until = format!("{:08x}", u32::try_from(seconds).unwrap_or(u32::MAX));
        let mac = self.mac(purpose, job, &until).finalize().into_bytes();
        format!("{until}{}", hex::encode(&mac[..MAC_BYTES]))
    }

    /// Whether it is a key of this job's page that is still valid. Takes the same time for every wrong key.
    #[must_use]
    pub fn opens(&self, key: &str, job: &JobId) -> bool {
        self.valid_until(LINK, key, job).is_some()
    }

    /// The end of the validity of what was made for this purpose and job; `None`: it is over, or was not made here.
    fn valid_until(&self, purpose: &[u8], sealed: &str, job: &JobId) -> Option<u64> {
        let (until, mac) = sealed.split_at_checked(TIME_DIGITS)?;
        let is_whole = |it: &Vec<u8>| it.len() == MAC_BYTES && mac.len() == 2 * MAC_BYTES;
        let given = hex::decode(mac).ok().filter(is_whole)?;
        self.mac(purpose, job, until).verify_truncated_left(&given).ok()?;
        u64::from_str_radix(until, 16).ok().filter(|until| now_seconds() < *until)
    }

    /// Address of a job's page.
    #[must_use]
    pub fn url(&self, job: &JobId) -> String {
        format!("{}{}", self.public_url, self.path(job))
    }

    /// Cookie with which a browser that has opened a job's page by this key opens it again from the list, which has no
    /// keys, until the key expires. It is sent for this page only, never from another site, no script can read it, and it is no
    /// key itself. `None`: the key is not valid.
    #[must_use]
    pub fn cookie(&self, job: &JobId, key: &str) -> Option<String> {
        let until = self.valid_until(LINK, key, job)?;
        let (value, seconds) = (self.sealed(REMEMBERED, job, until), until.saturating_sub(now_seconds()));
        Some(cookies::set(self, COOKIE, &value, &format!("/jobs/{job}"), seconds, "Strict"))
    }

    /// Path of the job's page, valid as long as the link by which the browser opened it before.
    #[must_use]
    pub fn remembered(&self, job: &str, headers: &HeaderMap) -> Option<String> {
        let job: JobId = job.parse().ok()?;
        let until =
            cookies::values(headers, COOKIE).find_map(|value| self.valid_until(REMEMBERED, value, &job))?;
        Some(path_with(&job, &self.sealed(LINK, &job, until)))
    }

    /// Path of a job's page on this server.
    #[must_use]
    pub fn path(&self, job: &JobId) -> String {
        path_with(job, &self.key(job))
    }

    /// The same for a visitor who may open the page without a key.
    #[must_use]
    pub fn path_of_visit(&self, job: &JobId) -> String {
        let lifetime = self.lifetime.min(VISIT);
        path_with(job, &self.sealed(LINK, job, now_seconds().saturating_add(lifetime.as_secs())))
    }
}

fn path_with(job: &JobId, key: &str) -> String {
    format!("/jobs/{job}?key={key}")
}

/// Seconds since the Unix epoch.
pub(super) fn now_seconds() -> u64 {
    u64::try_from(clock::now_ms() / 1000).unwrap_or_default()
}

/// Creates the file atomically; another server may be faster.
fn make_secret(file: &Path) -> io::Result<Vec<u8>> {
    let secret: [u8; SECRET_BYTES] = rand::random();
    let own = file.with_extension(format!("{:016x}", rand::random::<u64>()));
    let mut target = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&own)?;
    target.write_all(&secret)?;
    target.sync_all()?;
    let linked = fs::hard_link(&own, file);
    fs::remove_file(&own)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => {
            // With another secret the same request id would be another request.
            fs::File::open(file.parent().unwrap_or(file))?.sync_all()?;
            fs::read(file)
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn link_opens_only_its_jobs_page_on_every_server() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("links.key");
        let links = Links::open(&file, "https://host/", HOUR).unwrap();
        let (job, other) = (JobId::generate(), JobId::generate());
        let key = links.key(&job);
        assert!(Links::open(&file, "", HOUR).unwrap().opens(&key, &job));
        assert!(!links.opens(&key, &other));
        let later = format!("ffffffff{}", &key[8..]);
        for wrong in ["", "00", &key[1..], &format!("{key}00"), &"é".repeat(20), &"0".repeat(40), &later] {
            assert!(!links.opens(wrong, &job), "{wrong}");
        }
        assert_eq!(links.url(&job), format!("https://host/jobs/{job}?key={key}"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn link_expires() {
        let dir = tempfile::tempdir().unwrap();
        let links = Links::open(&dir.path().join("links.key"), "http://host", HOUR).unwrap();
        let job = JobId::generate();
        assert!(links.opens(&links.sealed(LINK, &job, now_seconds() + 60), &job));
        assert!(!links.opens(&links.sealed(LINK, &job, now_seconds() - 1), &job));
        let at_once = Links { lifetime: Duration::ZERO, ..links };
        assert!(!at_once.opens(&at_once.key(&job), &job));
    }

    #[test]
    fn cookie_reopens_the_page_until_its_link_expires() {
        let dir = tempfile::tempdir().unwrap();
        let links = Links::open(&dir.path().join("links.key"), "https://host", HOUR).unwrap();
        let (job, other) = (JobId::generate(), JobId::generate());
        let key = links.key(&job);
        let cookie = links.cookie(&job, &key).unwrap();
        assert!(cookie.contains(&format!("; Path=/jobs/{job};")) && cookie.ends_with("; Secure"), "{cookie}");
        let sent = |text: &str| HeaderMap::from_iter([(header::COOKIE, text.parse().unwrap())]);
        let pair = cookie.split(';').next().unwrap();
        // The key ends when the first one did.
        let again = links.remembered(job.as_str(), &sent(&format!("a=b; {pair}"))).unwrap();
        assert_eq!(again, path_with(&job, &key));
        for wrong in ["", "sqlflow_page=", "sqlflow_page=00", &pair[1..], &format!("sqlflow_page={key}")] {
            assert_eq!(links.remembered(job.as_str(), &sent(wrong)), None, "{wrong}");
        }
        assert_eq!(links.remembered(other.as_str(), &sent(pair)), None);
        assert_eq!(links.remembered("no id", &sent(pair)), None);
        let value = pair.split_once('=').unwrap().1;
        assert!(!links.opens(value, &job), "it is no key");
        assert_eq!(links.cookie(&job, "no key"), None);
        let over = links.sealed(REMEMBERED, &job, now_seconds() - 1);
        assert_eq!(links.remembered(job.as_str(), &sent(&format!("sqlflow_page={over}"))), None);
    }
}
