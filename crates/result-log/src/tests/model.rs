//! Two processes on one folder, with faults, compared with a model: a list.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Act {
    /// An attempt's next records, after some duplicates.
    Append {
        handle: usize,
        attempt: u32,
        repeated: u64,
        lengths: Vec<usize>,
    },
    Notice {
        handle: usize,
    },
    Seal {
        handle: usize,
        attempt: u32,
    },
    Read {
        handle: usize,
        after: u64,
        max_bytes: usize,
    },
    /// Another process, which starts this many microseconds after the previous one.
    Reopen {
        handle: usize,
        later: i64,
    },
    /// The process is killed during an append. This part of its bytes (in 1/1000) and this garbage are written.
    Kill {
        handle: usize,
        lengths: Vec<usize>,
        written: usize,
        garbage: Vec<u8>,
    },
    /// A power failure: the committed offset is an older one, or none.
    PowerFailure {
        committed: usize,
    },
}

fn any_lengths() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![4 => 0_usize..80, 1 => 0_usize..900], 1..6)
}

fn any_act() -> impl Strategy<Value = Act> {
    let handle = 0_usize..2;
    let garbage = prop_oneof![Just(Vec::new()), Just(vec![0; 50]), prop::collection::vec(any::<u8>(), 0..60)];
    prop_oneof![
        8 => (handle.clone(), 1_u32..4, 0_u64..3, any_lengths())
            .prop_map(|(handle, attempt, repeated, lengths)| Act::Append { handle, attempt, repeated, lengths }),
        2 => handle.clone().prop_map(|handle| Act::Notice { handle }),
        1 => (handle.clone(), 1_u32..4).prop_map(|(handle, attempt)| Act::Seal { handle, attempt }),
        6 => (handle.clone(), 0_u64..60, 1_usize..2000)
            .prop_map(|(handle, after, max_bytes)| Act::Read { handle, after, max_bytes }),
        2 => (handle.clone(), 0_i64..30).prop_map(|(handle, later)| Act::Reopen { handle, later }),
        2 => (handle, any_lengths(), 0_usize..=1000, garbage)
            .prop_map(|(handle, lengths, written, garbage)| Act::Kill { handle, lengths, written, garbage }),
        1 => (0_usize..20).prop_map(|committed| Act::PowerFailure { committed }),
    ]
}

struct World {
    dir: tempfile::TempDir,
    job: JobId,
    handles: [SegmentLog; 2],
    /// Age of the job at the start of each process, in microseconds: its floor.
    floors: [i64; 2],
    model: Vec<StoredRecord>,
    seqs: BTreeMap<u32, u64>,
    sealed: BTreeSet<u32>,
    /// Earlier contents of the lock file.
    marks: Vec<Vec<u8>>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let handles = [open(dir.path()), open(dir.path())];
        let (job, model, seqs) = (JobId::generate(), Vec::new(), BTreeMap::new());
        let (floors, sealed, marks) = ([0; 2], BTreeSet::new(), vec![Vec::new()]);
        Self { dir, job, handles, floors, model, seqs, sealed, marks }
    }

    fn reopen(&mut self, handle: usize, later: i64) {
        self.floors[handle] = self.floors[0].max(self.floors[1]) + later;
        let opened_micros = self.job.created_ms() * 1000 + self.floors[handle];
        let options = LogOptions { opened_micros, ..options(self.dir.path()) };
        self.handles[handle] = SegmentLog::open(options).unwrap();
    }

    fn last(&self) -> u64 {
        self.model.last().map_or(0, |stored| stored.position)
    }

    fn lock_file(&self) -> std::path::PathBuf {
        self.handles[0].folder_of(&self.job).join("lock")
    }

    /// The attempt's next records, and the last `repeated` ones again.
    fn entries(&self, attempt: u32, repeated: u64, lengths: &[usize]) -> Vec<Entry> {
        let last = self.seqs.get(&attempt).copied().unwrap_or(0);
        let first = last.saturating_sub(repeated) + 1;
        (first..).zip(lengths).map(|(seq, &length)| output(0, attempt, seq, length)).collect()
    }

    /// The records that the entries add to the model.
    fn planned(&self, handle: usize, entries: &[Entry]) -> Vec<StoredRecord> {
        let mut position = self.last();
        let mut added = Vec::new();
        for entry in entries {
            if entry.producer.attempt > 0
                && entry.record.seq <= self.seqs.get(&entry.producer.attempt).copied().unwrap_or(0)
            {
                continue;
            }
            position = (position + 1).max(self.floors[handle].try_into().unwrap());
            let record = Some(entry.record.clone());
            added.push(StoredRecord {
                position,
                step: entry.producer.step,
                attempt: entry.producer.attempt,
                rank: 0,
                record,
                shift: 0,
            });
        }
        added
    }

    fn take(&mut self, added: impl IntoIterator<Item = StoredRecord>) {
        for stored in added {
            if stored.attempt > 0 {
                self.seqs.insert(stored.attempt, stored.record.as_ref().unwrap().seq);
            }
            self.model.push(stored);
        }
        self.marks.extend(fs::read(self.lock_file()).ok());
    }

    async fn append(&mut self, handle: usize, entries: Vec<Entry>) {
        let added = self.planned(handle, &entries);
        let is_refused = added.iter().any(|stored| self.sealed.contains(&stored.attempt));
        let attempts: BTreeSet<_> = entries.iter().map(|entry| entry.producer.attempt).collect();
        match self.handles[handle].append(&self.job, entries).await {
            Err(LogError::Sealed { .. }) if is_refused => {}
            Ok(appended) if !is_refused => {
                self.take(added);
                assert_eq!(appended.last_position, self.last());
                for attempt in attempts.into_iter().filter(|attempt| *attempt > 0) {
                    assert_eq!(
                        appended.last_seqs[&agent(0, attempt)],
                        self.seqs.get(&attempt).copied().unwrap_or(0)
                    );
                }
            }
            other => panic!("{other:?}"),
        }
    }

    async fn check_read(&self, handle: usize, after: u64, max_bytes: usize) {
        let last = self.last();
        let read = loop {
            match self.handles[handle].read(&self.job, after, max_bytes).await {
                // Retention after the previous append may still hold the lock.
                Ok(page) if !page.is_current => tokio::task::yield_now().await,
                read => break read,
            }
        };
        match read {
            Ok(page) => {
                assert_eq!(page.last_position, last);
                let rest = &self.model[self.model.partition_point(|stored| stored.position <= after)..];
                assert_eq!(page.behind, (rest.len() - page.records.len()) as u64);
                assert_eq!(page.records, rest[..page.records.len()]);
                assert!(!page.records.is_empty() || rest.is_empty());
                let bytes: usize = page.records.iter().map(prost::Message::encoded_len).sum();
                assert!(page.records.len() <= 1 || bytes <= max_bytes);
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    async fn kill(&mut self, handle: usize, lengths: &[usize], written: usize, garbage: &[u8]) {
        let attempt = (1..).find(|attempt| !self.sealed.contains(attempt)).unwrap();
        let entries = self.entries(attempt, 0, lengths);
        let added = self.planned(handle, &entries);
        let folder = self.handles[handle].folder_of(&self.job);
        let lengths_before = file_lengths(&folder);
        let committed = fs::read(self.lock_file()).unwrap_or_default();
        self.handles[handle].append(&self.job, entries).await.unwrap();
        for (path, length) in file_lengths(&folder) {
            let before = lengths_before.get(&path).copied().unwrap_or(0);
            if length > before {
                let mut bytes = fs::read(&path).unwrap();
                bytes.truncate(before + (length - before) * written / 1000);
                bytes.extend_from_slice(garbage);
                fs::write(&path, bytes).unwrap();
            }
        }
        fs::write(self.lock_file(), committed).unwrap();
        self.reopen(handle, 0);
        // A beginning of the unacknowledged records may exist. A new process finds it when it gets the lock.
        let last = loop {
            let page = self.handles[handle].read(&self.job, 0, 1).await.unwrap();
            if page.is_current {
                break page.last_position;
            }
            tokio::task::yield_now().await;
        };
        assert!(last >= self.last(), "nothing acknowledged is lost");
        let found = added.partition_point(|stored| stored.position <= last);
        assert!(written < 1000 || found == added.len(), "what is complete is kept");
        self.take(added.into_iter().take(found));
    }

    async fn act(&mut self, act: Act) {
        match act {
            Act::Append { handle, attempt, repeated, lengths } => {
                let entries = self.entries(attempt, repeated, &lengths);
                self.append(handle, entries).await;
            }
            Act::Notice { handle } => self.append(handle, vec![notice("it waits")]).await,
            Act::Seal { handle, attempt } => {
                let seqs =
                    self.handles[handle].seal(&super::attempt(&self.job, 0, attempt), None).await.unwrap();
                assert_eq!(seqs, BTreeMap::from([(0, self.seqs.get(&attempt).copied().unwrap_or(0))]));
                self.sealed.insert(attempt);
                self.take([]);
            }
            Act::Read { handle, after, max_bytes } => self.check_read(handle, after, max_bytes).await,
            Act::Reopen { handle, later } => self.reopen(handle, later),
            Act::Kill { handle, lengths, written, garbage } => {
                self.kill(handle, &lengths, written, &garbage).await;
            }
            Act::PowerFailure { committed } => {
                if self.lock_file().exists() {
                    fs::write(self.lock_file(), &self.marks[committed % self.marks.len()]).unwrap();
                    self.reopen(0, 0);
                    self.reopen(1, 0);
                }
            }
        }
    }
}

fn file_lengths(folder: &Path) -> BTreeMap<std::path::PathBuf, usize> {
    let Ok(files) = fs::read_dir(folder) else { return BTreeMap::new() };
    files
        .map(|file| file.unwrap())
        .filter(|file| file.file_name() != "lock")
        .map(|file| (file.path(), usize::try_from(file.metadata().unwrap().len()).unwrap()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn log_matches_model(acts in prop::collection::vec(any_act(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for act in acts {
                world.act(act).await;
            }
            for handle in 0..2 {
                for after in 0..=world.last() + 1 {
                    world.check_read(handle, after, 300).await;
                }
                for attempt in 1..4 {
                    let last = world.handles[handle].last_seq(&super::attempt(&world.job, 0, attempt), 0).await.unwrap();
                    assert_eq!(last, world.seqs.get(&attempt).copied().unwrap_or(0));
                }
            }
            assert!(positions(&world.model).is_sorted_by(|one, next| one < next));
        });
    }
}
