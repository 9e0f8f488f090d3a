//! Owners of jobs, and their leases.

use super::*;

#[tokio::test]
async fn excluded_jobs_are_not_claimed() {
    let Servers { a, b, dir: _dir, .. } = servers().await;
    let mut ids = Vec::new();
    for token in [1, 2] {
        let new = new_job([token; 32], 0);
        ids.push(new.job.id.clone());
        a.create(new).await.unwrap();
        a.release(&ids[ids.len() - 1], &first_lease()).await.unwrap();
    }
    let claimed = |claimed: Vec<(JobId, Lease)>| claimed.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    let by_a = a.claim(Claim { except: vec![ids[0].clone()], ..claim("a", &[]) }).await.unwrap();
    assert_eq!(claimed(by_a), ids[1..]);
    assert_eq!(claimed(b.claim(claim("b", &[])).await.unwrap()), ids[..1]);
}

#[tokio::test]
async fn lost_lease_rejects_writes() {
    let servers = servers().await;
    let Servers { a, b, .. } = &servers;
    let new = new_job([1; 32], 0);
    let id = new.job.id.clone();
    a.create(new).await.unwrap();
    servers.at(500);
    assert_eq!(b.claim(claim("b", &[])).await.unwrap(), [], "the lease lives");
    let taken = b.claim(claim("b", &["a"])).await.unwrap();
    let lease = Lease { owner: server("b"), epoch: Lease::FIRST_EPOCH + 1 };
    assert_eq!(taken, [(id.clone(), lease.clone())], "its holder is dead");

    let late = a.update(&id, Some(&first_lease()), attempt(), 600).await;
    assert!(matches!(late, Err(UpdateError::Fenced)), "{late:?}");
    b.update(&id, Some(&lease), attempt(), 600).await.unwrap();
    // Agents know no lease. They are fenced by the number of their attempt.
    let cancel = Failure { cause: Cause::Cancelled, message: "by the user".to_owned() };
    a.update(&id, None, Event::CancelRequested(cancel), 700).await.unwrap();
    servers.at(1_500);
    assert_eq!(b.claim(claim("b", &[])).await.unwrap(), [], "a server does not take its own");
    assert_eq!(a.claim(claim("a", &[])).await.unwrap().len(), 1, "a lease that ran out is free");
}

#[tokio::test]
async fn released_job_is_claimable_at_once() {
    let servers = servers().await;
    let Servers { a, b, .. } = &servers;
    let new = new_job([1; 32], 0);
    let id = new.job.id.clone();
    a.create(new).await.unwrap();
    assert_eq!(a.held(&server("a"), None, 10).await.unwrap(), [(id.clone(), first_lease())]);
    a.release(&id, &Lease { epoch: 7, ..first_lease() }).await.unwrap();
    assert_eq!(b.claim(claim("b", &[])).await.unwrap(), [], "another lease gives nothing back");
    a.release(&id, &first_lease()).await.unwrap();
    assert_eq!(a.held(&server("a"), None, 10).await.unwrap(), []);
    assert!(matches!(a.update(&id, Some(&first_lease()), attempt(), 1).await, Err(UpdateError::Fenced)));
    let taken = a.claim(claim("a", &[])).await.unwrap();
    assert_eq!(taken, [(id, Lease { epoch: 2, ..first_lease() })], "also by the same server");
}

#[tokio::test]
async fn heartbeat_renews_only_own_lease() {
    let servers = servers().await;
    let Servers { a, b, .. } = &servers;
    a.create(new_job([1; 32], 0)).await.unwrap();
    servers.at(900);
    a.heartbeat(&server("a"), ms(1_100), ms(10_000)).await.unwrap();
    b.heartbeat(&server("b"), ms(8_100), ms(10_000)).await.unwrap();
    servers.at(1_500);
    assert_eq!(b.claim(claim("b", &[])).await.unwrap(), []);
    assert_eq!(b.lease_owners(&server("b")).await.unwrap(), [server("a")]);
    assert!(b.lease_lasts(&server("a")).await.unwrap());
    servers.at(2_000);
    assert_eq!(b.lease_owners(&server("b")).await.unwrap(), []);
    assert!(!b.lease_lasts(&server("a")).await.unwrap());
    assert!(!b.lease_lasts(&server("never there")).await.unwrap());
    assert_eq!(b.claim(claim("b", &[])).await.unwrap().len(), 1);
}

/// It was one write for each job: 41 MB each second with 10,000 jobs.
#[tokio::test]
async fn heartbeat_cost_is_independent_of_jobs() {
    let servers = servers().await;
    let a = &servers.a;
    let wal = servers.dir.path().join("state.db-wal");
    a.heartbeat(&server("a"), ms(1_000), ms(10_000)).await.unwrap();
    for n in 0..200 {
        let mut token = [0; 32];
        token[0] = n;
        a.create(new_job(token, 0)).await.unwrap();
    }
    servers.tamper("PRAGMA wal_checkpoint(TRUNCATE)");
    a.heartbeat(&server("a"), ms(1_000), ms(10_000)).await.unwrap();
    let written = std::fs::metadata(&wal).unwrap().len();
    assert!(written < 5 * 4_200, "{written} bytes");
}

#[tokio::test]
async fn fetch_timeout_excludes_time_without_servers() {
    let servers = servers().await;
    let a = &servers.a;
    a.heartbeat(&server("a"), ms(1_000), ms(100)).await.unwrap();
    let new = new_job([1; 32], 500);
    let id = new.job.id.clone();
    a.create(new).await.unwrap();
    let unfetched = async |now_ms| {
        servers.at(now_ms);
        a.heartbeat(&server("a"), ms(1_000), ms(1_000)).await.unwrap();
        a.unfetched(None, 10).await.unwrap()
    };
    assert_eq!(unfetched(400).await, []);
    // No server responded for ten seconds. They do not count, even before the next heartbeat.
    servers.at(10_400);
    assert_eq!(a.unfetched(None, 10).await.unwrap(), []);
    assert_eq!(unfetched(10_400).await, []);
    assert_eq!(unfetched(10_500).await, []);
    assert_eq!(unfetched(10_501).await, [Unfetched { id: id.clone(), timeout_ms: 500, due_ms: 10_500 }]);
    a.fetched(&id).await.unwrap();
    assert_eq!(unfetched(11_001).await, []);
    assert_eq!(unfetched(11_002).await.len(), 1);
}
