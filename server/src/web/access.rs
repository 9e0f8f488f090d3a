//! Access to a job's web page: by its link. A link's key is a MAC over the job's id under a secret of the state
//! folder, so every server there makes and accepts the same one. It grants access to the page and nothing else.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use axum::http::{HeaderMap, header};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use sqlflow_job::JobId;

/// Bytes of the secret, and of a key.
const SECRET_BYTES: usize = 32;
const KEY_BYTES: usize = 16;
/// Name of a cookie with a page's key, and its lifetime in a browser: 30 days.
const COOKIE: &str = "sqlflow_page";
const COOKIE_SECONDS: u32 = 30 * 24 * 3600;

/// Makes and verifies links.
#[derive(Clone)]
pub struct Links {
    secret: [u8; SECRET_BYTES],
    public_url: String,
}

impl Links {
    /// Reads the secret from this file, or creates it. `public_url` is this server's address for browsers.
    ///
    /// # Errors
    /// The file can be neither read nor created, or has other content.
    pub fn open(file: &Path, public_url: &str) -> io::Result<Self> {
        let secret = match fs::read(file) {
            Ok(secret) => secret,
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_secret(file)?,
            Err(error) => return Err(error),
        };
        let secret = secret
            .try_into()
            .map_err(|_| io::Error::other(format!("{} is damaged; remove it", file.display())))?;
        Ok(Self { secret, public_url: public_url.trim_end_matches('/').to_owned() })
    }

    /// Derives 32 bytes from these parts, which cannot be made without the secret. Each purpose has its own.
    #[must_use]
    pub fn derive(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("any length will do");
        // With their lengths, two different lists of parts never become the same bytes.
        for part in std::iter::once(purpose.as_bytes()).chain(parts.iter().copied()) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    fn mac(&self, job: &JobId) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("any length will do");
        mac.update(b"job page ");
        mac.update(job.as_str().as_bytes());
        mac
    }

    /// Key of a job's page.
    #[must_use]
    pub fn key(&self, job: &JobId) -> String {
        let mac = self.mac(job).finalize().into_bytes();
        hex::encode(&mac[..KEY_BYTES])
    }

    /// Whether it is the key of this job's page. Takes the same time for every wrong key.
    #[must_use]
    pub fn opens(&self, key: &str, job: &JobId) -> bool {
        let is_whole = |it: &Vec<u8>| it.len() == KEY_BYTES && key.len() == 2 * KEY_BYTES;
        hex::decode(key)
            .ok()
            .filter(is_whole)
            .is_some_and(|it| self.mac(job).verify_truncated_left(&it).is_ok())
    }

    /// Address of a job's page.
    #[must_use]
    pub fn url(&self, job: &JobId) -> String {
        format!("{}{}", self.public_url, self.path(job))
    }

    /// Cookie with which a browser that has opened a job's page opens it again from the list, which has no keys. It
    /// is sent for this page only, never from another site, and no script can read it.
    #[must_use]
    pub fn cookie(&self, job: &JobId) -> String {
        let secure = if self.public_url.starts_with("https://") { "; Secure" } else { "" };
        let key = self.key(job);
        format!(
            "{COOKIE}={key}; Path=/jobs/{job}; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Strict{secure}"
        )
    }

    /// The job, if the browser has opened its page before.
    #[must_use]
    pub fn remembered(&self, job: &str, headers: &HeaderMap) -> Option<JobId> {
        let job: JobId = job.parse().ok()?;
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|it| it.to_str().ok());
        let mut pairs = cookies.flat_map(|it| it.split(';')).filter_map(|it| it.trim().split_once('='));
        let is_known = pairs.any(|(name, key)| name == COOKIE && self.opens(key, &job));
        is_known.then_some(job)
    }

    /// Path of a job's page on this server.
    #[must_use]
    pub fn path(&self, job: &JobId) -> String {
        format!("/jobs/{job}?key={}", self.key(job))
    }
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
    use super::*;

    #[test]
    fn link_opens_only_its_jobs_page_on_every_server() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("links.key");
        let links = Links::open(&file, "https://host/").unwrap();
        let (job, other) = (JobId::generate(), JobId::generate());
        let key = links.key(&job);
        assert!(Links::open(&file, "").unwrap().opens(&key, &job));
        assert!(!links.opens(&key, &other));
        for wrong in ["", "00", &key[1..], &format!("{key}00"), &"é".repeat(16), &"0".repeat(32)] {
            assert!(!links.opens(wrong, &job), "{wrong}");
        }
        assert_eq!(links.url(&job), format!("https://host/jobs/{job}?key={key}"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn cookie_reopens_the_page_it_was_set_for() {
        let dir = tempfile::tempdir().unwrap();
        let links = Links::open(&dir.path().join("links.key"), "https://host").unwrap();
        let (job, other) = (JobId::generate(), JobId::generate());
        let cookie = links.cookie(&job);
        assert!(cookie.contains(&format!("; Path=/jobs/{job};")) && cookie.ends_with("; Secure"), "{cookie}");
        let sent = |text: &str| HeaderMap::from_iter([(header::COOKIE, text.parse().unwrap())]);
        let pair = cookie.split(';').next().unwrap();
        assert_eq!(links.remembered(job.as_str(), &sent(&format!("a=b; {pair}"))), Some(job.clone()));
        for wrong in ["", "sqlflow_page=", "sqlflow_page=00", &pair[1..]] {
            assert_eq!(links.remembered(job.as_str(), &sent(wrong)), None, "{wrong}");
        }
        assert_eq!(links.remembered(other.as_str(), &sent(pair)), None);
        assert_eq!(links.remembered("no id", &sent(pair)), None);
    }
}
