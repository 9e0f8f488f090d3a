//! The secrets of live jobs in the state file.

use rusqlite::{Connection, OptionalExtension as _, Row, TransactionBehavior, params};
use sqlflow_job::JobId;

use super::rows::job_id;
use crate::secret_keys::{Place, SecretKeys, StoredSecret};
use crate::types::{NewJob, StoreError};

/// Records the secrets of a new job.
pub(super) fn insert(tx: &Connection, new: &NewJob, keys: &SecretKeys) -> Result<(), StoreError> {
    let mut query =
        tx.prepare_cached("INSERT INTO secrets (job_id, name, value, key_id) VALUES (?, ?, ?, ?)")?;
    for (name, secret) in &new.secrets {
        let stored = keys.seal(&Place { job: &new.job.id, name }, secret)?;
        query.execute(params![new.job.id.as_str(), name, stored.value, stored.key])?;
    }
    Ok(())
}

/// A secret as it is stored.
pub(super) fn find(
    connection: &Connection,
    id: &JobId,
    name: &str,
) -> Result<Option<StoredSecret>, StoreError> {
    let sql = "SELECT value, key_id FROM secrets WHERE job_id = ? AND name = ?";
    Ok(connection.prepare_cached(sql)?.query_one([id.as_str(), name], stored).optional()?)
}

fn stored(row: &Row<'_>) -> rusqlite::Result<StoredSecret> {
    Ok(StoredSecret { value: row.get("value")?, key: row.get("key_id")? })
}

/// Deletes the secrets of a job.
pub(super) fn forget(tx: &Connection, id: &JobId) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM secrets WHERE job_id = ?")?.execute([id.as_str()])?;
    Ok(())
}

/// The secrets of live jobs have keys that this server lacks.
#[derive(Debug, thiserror::Error)]
#[error(
    "data sources of {jobs} live job(s) are encrypted with the key {}, and this server has {}; give it that key by \
     --secrets-key or --secrets-key-old",
    needed.join(" and "),
    has.as_ref().map_or_else(|| "none".to_owned(), |it| format!("the key {it}"))
)]
struct MissingKeys {
    jobs: i64,
    needed: Vec<String>,
    has: Option<String>,
}

/// Encrypts all secrets with the current key: those of earlier versions are not encrypted, and others have an old key.
/// Returns how many were.
///
/// # Errors
/// [`MissingKeys`], or the database fails. Nothing is changed then.
pub(super) fn renew(connection: &mut Connection, keys: &SecretKeys) -> anyhow::Result<usize> {
    let sql = "SELECT EXISTS (SELECT 1 FROM secrets WHERE key_id IS NOT ?)";
    if !connection.query_row(sql, [keys.current_id()], |row| row.get::<_, bool>(0))? {
        // Nothing is locked for this.
        return Ok(0);
    }
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    check(&tx, keys)?;
    let Some(current) = keys.current_id() else { return Ok(0) };
    let mut renewed = 0;
    for Found { job, name, stored } in others(&tx, current)? {
        let place = Place { job: &job, name: &name };
        // A damaged one affects its own job only, when it is used.
        let Ok(secret) = keys.open(&place, &stored) else { continue };
        let sealed = keys.seal(&place, &secret)?;
        let sql = "UPDATE secrets SET value = ?, key_id = ? WHERE job_id = ? AND name = ?";
        tx.execute(sql, params![sealed.value, sealed.key, job.as_str(), name])?;
        renewed += 1;
    }
    tx.commit()?;
    Ok(renewed)
}

fn check(tx: &Connection, keys: &SecretKeys) -> anyhow::Result<()> {
    let mut query =
        tx.prepare("SELECT DISTINCT key_id FROM secrets WHERE key_id IS NOT NULL ORDER BY key_id")?;
    let used = query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    let needed: Vec<String> = used.into_iter().filter(|id| !keys.has(id)).collect();
    if needed.is_empty() {
        return Ok(());
    }
    let sql = "SELECT COUNT(DISTINCT job_id) FROM secrets WHERE key_id IN (SELECT value FROM json_each(?))";
    let jobs = tx.query_row(sql, [serde_json::to_string(&needed)?], |row| row.get(0))?;
    Err(MissingKeys { jobs, needed, has: keys.current_id().map(str::to_owned) }.into())
}

/// The secrets that the current key does not encrypt.
fn others(tx: &Connection, current: &str) -> Result<Vec<Found>, StoreError> {
    let mut query = tx.prepare("SELECT job_id, name, value, key_id FROM secrets WHERE key_id IS NOT ?")?;
    let mut rows = query.query([current])?;
    let mut others = Vec::new();
    while let Some(row) = rows.next()? {
        others.extend(found(row)?);
    }
    Ok(others)
}

/// All secrets.
pub(super) const ALL: &str = "SELECT job_id, name, value, key_id FROM secrets ORDER BY job_id";

/// A secret, where it is stored.
pub(super) struct Found {
    job: JobId,
    name: String,
    stored: StoredSecret,
}

/// A row with the columns of [`ALL`]. `None`: its id is damaged, so it is nobody's.
pub(super) fn found(row: &Row<'_>) -> Result<Option<Found>, StoreError> {
    let Ok(job) = job_id(row) else { return Ok(None) };
    Ok(Some(Found { job, name: row.get("name")?, stored: stored(row)? }))
}

/// Jobs whose secrets these keys do not decrypt, with the reason.
pub(super) fn unreadable(all: Vec<Found>, keys: &SecretKeys) -> Vec<(JobId, StoreError)> {
    let mut unreadable: Vec<(JobId, StoreError)> = Vec::new();
    for Found { job, name, stored } in all {
        let opened = keys.open(&Place { job: &job, name: &name }, &stored);
        if let Err(error) = opened
            && unreadable.last().is_none_or(|(last, _)| *last != job)
        {
            unreadable.push((job, error));
        }
    }
    unreadable
}

#[cfg(test)]
mod tests {
    use sqlflow_job::Job;

    use super::*;
    use crate::fixture::new_job;
    use crate::secret_keys::{KEY_BYTES, SecretKey};
    use crate::{Secret, ServerId, SqliteStore, Store, Survey};

    const DSN: &str = "mysql://ana:open-sesame@db/shop";

    fn keys(bytes: &[u8]) -> SecretKeys {
        let mut keys = bytes.iter().map(|byte| SecretKey::read(&[*byte; KEY_BYTES]).unwrap());
        keys.next().map_or_else(SecretKeys::default, |current| SecretKeys::new(current, keys.collect()))
    }

    async fn add_job(store: &SqliteStore) -> JobId {
        let id = JobId::generate();
        let mut new = new_job(Job::new(id.clone(), Vec::new()), &ServerId::generate());
        new.token = sqlflow_job::Token::generate().hash();
        new.secrets = vec![("datasource".to_owned(), Secret::new(DSN))];
        store.create(new).await.unwrap();
        id
    }

    /// Whether the state's files have the text.
    fn shows_it(dir: &std::path::Path) -> bool {
        let has = |bytes: &[u8]| bytes.windows(DSN.len()).any(|it| it == DSN.as_bytes());
        let mut files = std::fs::read_dir(dir).unwrap();
        files.any(|file| std::fs::read(file.unwrap().path()).is_ok_and(|it| has(&it)))
    }

    async fn read(store: &SqliteStore, id: &JobId) -> String {
        store.secret(id, "datasource").await.unwrap().unwrap().expose().to_owned()
    }

    #[tokio::test]
    async fn secrets_are_encrypted_with_the_current_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let open = async |bytes: &[u8]| SqliteStore::open_with_keys(&path, keys(bytes)).await;
        let store = open(&[]).await.unwrap();
        let first = add_job(&store).await;
        assert!(shows_it(dir.path()), "as without a key");
        store.close().await;

        // The secret of the earlier server is encrypted now.
        let store = open(&[1]).await.unwrap();
        let second = add_job(&store).await;
        for id in [&first, &second] {
            assert_eq!(read(&store, id).await, DSN);
        }
        store.close().await;
        assert!(!shows_it(dir.path()));

        // Another key is refused, and changes nothing.
        for other in [&[][..], &[2], &[2, 3]] {
            let error = open(other).await.map(drop).unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains("data sources of 2 live job(s) are encrypted with the key"), "{error}");
            assert!(error.contains("--secrets-key-old"), "{error}");
        }
        let store = open(&[2, 1]).await.unwrap();
        assert_eq!(read(&store, &first).await, DSN);
        store.close().await;
        // The old one is not needed any more.
        let store = open(&[2]).await.unwrap();
        for id in [&first, &second] {
            assert_eq!(read(&store, id).await, DSN);
        }
        let mut survey = Survey::open(&path).unwrap();
        assert!(survey.unreadable_secrets(&keys(&[2])).unwrap().is_empty());
        let found = survey.unreadable_secrets(&keys(&[1])).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|(_, error)| matches!(error, StoreError::OtherKey { .. })));
    }

    /// Another server has changed the key meanwhile, or the disk has damaged the row.
    #[tokio::test]
    async fn secret_that_cannot_be_decrypted_affects_its_job_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let store = SqliteStore::open_with_keys(&path, keys(&[1])).await.unwrap();
        let (good, damaged, moved) = (add_job(&store).await, add_job(&store).await, add_job(&store).await);
        crate::fixture::tamper(
            &path,
            &format!("UPDATE secrets SET value = substr(value, 3) WHERE job_id = '{damaged}'"),
        );
        crate::fixture::tamper(
            &path,
            &format!(
                "UPDATE secrets SET value = (SELECT value FROM secrets WHERE job_id = '{good}') WHERE job_id = '{moved}'"
            ),
        );
        for id in [&damaged, &moved] {
            let error = store.secret(id, "datasource").await.unwrap_err();
            assert!(matches!(error, StoreError::DamagedSecret(_)), "{error}");
        }
        assert_eq!(read(&store, &good).await, DSN);
        store.close().await;
        // It keeps no server from starting.
        let store = SqliteStore::open_with_keys(&path, keys(&[2, 1])).await.unwrap();
        assert_eq!(read(&store, &good).await, DSN);
        assert!(store.secret(&moved, "datasource").await.is_err());
    }
}
