//! The dead-letter store against what happens to disks and processes: `kill -9`, flipped bits, cut files, no room.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use bytes::Bytes;
use interven_alerts::{
    dead_letters::{DeadLetter, DeadLetterError, LastReply, LetterFilter, LetterId, OpenReport, Store, StoreOptions},
    model::{Attempt, DeathReason, DecisionKind, Severity, Timestamp},
};
use uuid::Uuid;

/// Names the directory that the child of the crash test writes to.
const CHILD_DIR: &str = "INTERVEN_ALERTS_TEST_CHILD_DIR";
const MINUTE_MS: i64 = 60_000;

fn time(minute: i64) -> Timestamp {
    Timestamp::from_unix_millis(1_780_000_000_000 + minute * MINUTE_MS)
}

/// The body of letter `n`: its bytes follow from `n`, so that a reader can tell whether they are the right ones.
fn body(n: u64) -> Bytes {
    let bytes = match n % 10 {
        0 => 100_000,
        1..3 => 20_000,
        _ => 600,
    };
    let mut text = format!("{{\"letter\":{n},\"fill\":\"");
    let mut random = fastrand::Rng::with_seed(n);
    while text.len() < bytes {
        text.push(random.alphanumeric());
    }
    text.push_str("\"}");
    text.into()
}

fn letter(n: u64) -> DeadLetter {
    let reasons = [DeathReason::Exhausted, DeathReason::Refused, DeathReason::Expired];
    let channels = ["soc-slack", "siem"];
    let (n_index, minute) = (usize::try_from(n).unwrap(), i64::try_from(n).unwrap());
    DeadLetter {
        id: LetterId(Uuid::now_v7()),
        subject: Uuid::from_u128(u128::from(n) + 1),
        reason: reasons[n_index % 3],
        detail: format!("HTTP 503: try {n} failed"),
        channel: Some(channels[n_index % 2].parse().unwrap()),
        decision_id: Some(format!("d-{n}")),
        decision: Some(DecisionKind::Deny),
        severity: Some(if n.is_multiple_of(4) { Severity::Critical } else { Severity::Low }),
        first_at: time(minute),
        died_at: time(minute),
        attempts: 10,
        last_reply: Some(LastReply { status: Some(503), text: "busy".to_owned(), at: time(minute) }),
        history: vec![Attempt {
            at: time(minute),
            outcome: "try_later".to_owned(),
            status: Some(503),
            text: format!("try {n}"),
        }],
        body: body(n),
    }
}

fn number_of(letter: &DeadLetter) -> u64 {
    u64::try_from(letter.subject.as_u128() - 1).unwrap()
}

fn options() -> StoreOptions {
    StoreOptions { cache_bytes: 8 * 1024 * 1024, open_limit: Duration::from_secs(20), ..StoreOptions::default() }
}

fn open(dir: &Path) -> (Store, OpenReport) {
    Store::open(dir, options()).unwrap()
}

fn all() -> LetterFilter {
    LetterFilter { limit: Some(LetterFilter::LIMIT_MAX), ..LetterFilter::default() }
}

/// Every letter, through pages; with the ids that are damaged.
async fn everything(store: &Store) -> (Vec<DeadLetter>, Vec<LetterId>) {
    let (mut letters, mut damaged, mut next) = (Vec::new(), Vec::new(), None);
    loop {
        let page = store.list(&all(), next).await.unwrap();
        letters.extend(page.letters);
        damaged.extend(page.damaged);
        next = page.next;
        if next.is_none() {
            return (letters, damaged);
        }
    }
}

async fn numbers(store: &Store, filter: &LetterFilter) -> Vec<u64> {
    store.list(filter, None).await.unwrap().letters.iter().map(number_of).collect()
}

#[tokio::test]
async fn letters_are_listed_newest_first_by_every_filter_and_page_by_page() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let mut ids = Vec::new();
    for n in 0..12 {
        ids.push(store.bury(letter(n)).await.unwrap());
    }
    let filter = LetterFilter::default;
    assert_eq!(numbers(&store, &filter()).await, (0..12).rev().collect::<Vec<_>>());
    let channel = Some("siem".parse().unwrap());
    assert_eq!(numbers(&store, &LetterFilter { channel: channel.clone(), ..filter() }).await, [11, 9, 7, 5, 3, 1]);
    let reason = Some(DeathReason::Refused);
    assert_eq!(numbers(&store, &LetterFilter { reason, ..filter() }).await, [10, 7, 4, 1]);
    assert_eq!(numbers(&store, &LetterFilter { decision: Some("d-3".to_owned()), ..filter() }).await, [3]);
    assert_eq!(numbers(&store, &LetterFilter { severity: Some(Severity::Critical), ..filter() }).await, [8, 4, 0]);
    let (since, until) = (Some(time(3)), Some(time(6)));
    assert_eq!(numbers(&store, &LetterFilter { since, until, ..filter() }).await, [5, 4, 3]);
    assert_eq!(numbers(&store, &LetterFilter { ids: vec![ids[2], ids[9]], ..filter() }).await, [9, 2]);
    assert_eq!(numbers(&store, &LetterFilter { channel: channel.clone(), reason, ..filter() }).await, [7, 1]);

    let (mut read, mut next) = (Vec::new(), None);
    loop {
        let page = store.list(&LetterFilter { limit: Some(5), ..filter() }, next).await.unwrap();
        read.extend(page.letters.iter().map(number_of));
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(read, (0..12).rev().collect::<Vec<_>>());
    assert_eq!(store.select(&LetterFilter { limit: Some(3), ..filter() }).await.unwrap(), ids[9..]);

    assert_eq!(store.count(&filter()).await.unwrap(), 12);
    assert_eq!(store.count(&LetterFilter { channel, reason, ..filter() }).await.unwrap(), 2);
    assert_eq!(store.count(&LetterFilter { since: Some(time(10)), ..filter() }).await.unwrap(), 2);
    let causes = store.group_by_cause(&filter()).await.unwrap();
    assert_eq!(causes.len(), 6, "{causes:?}");
    assert!(causes.iter().all(|cause| cause.count == 2 && cause.detail == "HTTP 503: try # failed"), "{causes:?}");
    // How many letters there are does not depend on how many causes are told.
    let few = store.causes(&LetterFilter { limit: Some(2), ..filter() }).await.unwrap();
    assert_eq!((few.causes.len(), few.count), (2, 12));
    let first = causes.iter().find(|cause| cause.oldest == time(0)).unwrap();
    assert_eq!(first.newest, time(6));
    assert_eq!(store.counts().values().sum::<u64>(), 12);
    assert_eq!(store.get(ids[0]).await.unwrap().body, body(0), "a body in a file of its own");
}

#[tokio::test]
async fn a_subject_that_dies_again_keeps_its_letter_and_a_removed_one_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let id = store.bury(letter(10)).await.unwrap();
    let seen = store.fetch(vec![id]).await.unwrap().pop().unwrap().unwrap().burial;
    let mut again = letter(10);
    again.reason = DeathReason::Poison;
    again.body = body(11);
    // Together with a second death of the same subject, so that both meet in one batch.
    let (one, two) = tokio::join!(store.bury(again.clone()), store.bury(again.clone()));
    assert_eq!((one.unwrap(), two.unwrap()), (id, id));
    assert_eq!(store.count(&LetterFilter::default()).await.unwrap(), 1);
    assert_eq!(store.get(id).await.unwrap(), DeadLetter { id, ..again.clone() });
    assert_eq!(store.counts().values().sum::<u64>(), 1);

    // Goal: whoever replayed the first death must not take away the second.
    assert_eq!(store.remove_seen(vec![(id, seen)]).await.unwrap(), 0);
    assert_eq!(store.remove(vec![id, id]).await.unwrap(), 1);
    assert_eq!(store.remove(vec![id]).await.unwrap(), 0);
    assert!(matches!(store.get(id).await, Err(DeadLetterError::NotFound { .. })));
    let reborn = store.bury(again).await.unwrap();
    assert_ne!(reborn, id);
    store.close().await;
    assert!(matches!(store.bury(letter(1)).await, Err(DeadLetterError::Closed)));
    let (store, report) = open(dir.path());
    assert_eq!((report.letters, report.replayed), (1, 0), "{report:?}");
    assert_eq!(store.select(&LetterFilter::default()).await.unwrap(), [reborn]);
    assert!(store.verify().await.unwrap().is_clean());
}

#[tokio::test]
async fn a_second_process_is_told_that_the_store_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, _) = open(dir.path());
    let error = Store::open(dir.path(), options()).unwrap_err();
    assert!(matches!(error, DeadLetterError::InUse { .. }), "{error}");
    assert!(error.hint().contains("stop it first"));
}

#[tokio::test]
async fn an_export_restores_a_store_and_importing_it_again_adds_nothing() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (source, _) = open(from.path());
    for n in 0..23 {
        let mut letter = letter(n);
        if n == 5 {
            letter.body = Bytes::from_static(b"\xff\x00 not text");
        }
        source.bury(letter).await.unwrap();
    }
    let mut lines = Vec::new();
    assert_eq!(source.export(&LetterFilter::default(), &mut lines).await.unwrap(), 23);
    lines.extend_from_slice(b"\nnonsense\n");

    let (target, _) = open(to.path());
    let report = target.import(&mut &lines[..]).await.unwrap();
    assert_eq!((report.imported, report.already_there, report.faulty_total), (23, 0, 1), "{report:?}");
    assert_eq!(report.faulty[0].0, 25);
    assert_eq!(everything(&target).await, everything(&source).await);
    let report = target.import(&mut &lines[..]).await.unwrap();
    assert_eq!((report.imported, report.already_there), (0, 23));
    let one = LetterFilter { reason: Some(DeathReason::Refused), limit: Some(2), ..LetterFilter::default() };
    assert_eq!(target.export(&one, &mut tokio::io::sink()).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_stays_short_however_many_letters_come_and_go() {
    // Goal: segments whose records are resolved are dropped, also behind letters that stay for ever.
    // Method: 40 letters that stay, then 1,500 bodies of 60 KB (90 MB) that come and go.
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    for n in 0..40 {
        store.bury(letter(n)).await.unwrap();
    }
    let fill = Bytes::from(vec![b'x'; 60_000]);
    for round in 0..15 {
        let burials =
            (0..100).map(|n| store.bury(DeadLetter { body: fill.clone(), ..letter(1_000 + round * 100 + n) }));
        let ids = futures_util::future::join_all(burials).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
        assert_eq!(store.remove(ids).await.unwrap(), 100);
    }
    let journal: u64 =
        fs::read_dir(dir.path().join("journal")).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(journal < 48 * 1024 * 1024, "the journal has {journal} bytes");
    let report = store.verify().await.unwrap();
    assert!(report.is_clean() && report.letters == 40 && report.stray_blobs == 0, "{report:?}");
    store.close().await;
    // The index is lost: what the shortened journal gives back is what stayed, and nothing that went.
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (store, report) = open(dir.path());
    assert_eq!(report.letters, 40, "{report:?}");
    let (letters, damaged) = everything(&store).await;
    assert!(damaged.is_empty());
    assert!(letters.iter().all(|letter| number_of(letter) < 40 && letter.body == body(number_of(letter))));
}

#[test]
fn no_letter_that_was_buried_is_missing_after_kill_9_and_none_that_was_removed_is_back() {
    // Method: a child buries and removes as fast as it can and says so line by line; it is killed at random moments, many
    // times over the same store; each time the store must hold exactly what was said.
    let dir = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(0x001e_77e5);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut present, mut gone, mut unsure) = (HashMap::new(), HashSet::new(), HashSet::new());
    for round in 0..10_u64 {
        for line in lines_until_killed(dir.path(), round, Duration::from_millis(random.u64(20..700))) {
            let mut words = line.split(' ');
            let (what, number, id) = (words.next(), words.next(), words.next());
            let (Some(what), Some(number), Some(id)) = (what, number, id) else { panic!("{line:?}") };
            let (number, id): (u64, LetterId) = (number.parse().unwrap(), id.parse().unwrap());
            match what {
                "buried" => drop(present.insert(id, number)),
                "removing" => drop(present.remove(&id).map(|_| unsure.insert(id))),
                "removed" => assert!(unsure.remove(&id) && gone.insert(id)),
                other => panic!("{other}"),
            }
        }
        runtime.block_on(async {
            let (store, report) = open(dir.path());
            assert_eq!(report.incidents, [""; 0], "round {round}: a crash is not damage");
            let (letters, damaged) = everything(&store).await;
            assert_eq!(damaged, []);
            let held: HashMap<LetterId, u64> = letters.iter().map(|letter| (letter.id, number_of(letter))).collect();
            for letter in &letters {
                assert_eq!(letter.body, body(number_of(letter)), "round {round}");
            }
            let lost: Vec<_> = present.iter().filter(|(id, number)| held.get(id) != Some(number)).collect();
            assert!(lost.is_empty(), "round {round}: {} of {} lost: {lost:?}", lost.len(), present.len());
            let back: Vec<_> = gone.iter().filter(|id| held.contains_key(id)).collect();
            assert!(back.is_empty(), "round {round}: came back: {back:?}");
            assert_eq!(store.counts().values().sum::<u64>(), letters.len() as u64, "round {round}: the counts are off");
            let verified = store.verify().await.unwrap();
            assert!(verified.is_clean(), "round {round}: {verified:?}");
            // What the child had not been told about is settled now, one way or the other.
            unsure.clear();
            present = held;
            store.close().await;
        });
    }
    assert!(!present.is_empty() && !gone.is_empty(), "the child did nothing");
}

/// What the child said before it was killed, whole lines only.
fn lines_until_killed(dir: &Path, round: u64, after: Duration) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "dead_letters::child_that_buries_until_it_is_killed", "--nocapture"])
        .env(CHILD_DIR, format!("{}\n{round}", dir.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = child.stdout.take().unwrap();
    let (first, started) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let (mut lines, mut output) = (Vec::new(), BufReader::new(output));
        let mut line = String::new();
        while output.read_line(&mut line).unwrap_or(0) > 0 {
            // libtest writes without a line break before the first of ours.
            if let Some(said) = line.strip_suffix('\n').and_then(|said| said.split_once("@ ")) {
                lines.push(said.1.to_owned());
                first.send(()).unwrap_or_default();
            }
            line.clear();
        }
        lines
    });
    started.recv_timeout(Duration::from_secs(30)).unwrap();
    std::thread::sleep(after);
    // On Unix this is SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of the crash test"]
async fn child_that_buries_until_it_is_killed() {
    #[expect(clippy::disallowed_methods, reason = "how the parent test tells its child what to do")]
    let Ok(told) = std::env::var(CHILD_DIR) else { return };
    let (dir, round) = told.split_once('\n').unwrap();
    let round: u64 = round.parse().unwrap();
    let (store, _) = open(&PathBuf::from(dir));
    let tasks = (0..8_u64).map(|task| {
        let store = store.clone();
        async move {
            let mut random = fastrand::Rng::with_seed(round * 100 + task);
            let mut mine = Vec::new();
            for n in 0_u64.. {
                let number = round * 1_000_000 + task * 100_000 + n;
                let id = store.bury(letter(number)).await.unwrap();
                println!("@ buried {number} {id}");
                mine.push((number, id));
                if random.u8(0..10) < 4 {
                    let (number, id) = mine.swap_remove(random.usize(0..mine.len()));
                    println!("@ removing {number} {id}");
                    assert_eq!(store.remove(vec![id]).await.unwrap(), 1);
                    println!("@ removed {number} {id}");
                }
            }
        }
    });
    futures_util::future::join_all(tasks).await;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Flip,
    Cut,
    Delete,
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files_in(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_in(&path, found) } else { found.push(path) }
    }
    found.sort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_damaged_byte_or_cut_file_anywhere_costs_at_most_the_body_it_is_in() {
    // Method: a small store with removals and replacements, closed or killed; then for sampled offsets of every file, flip a
    // byte or cut the file in a copy, open, read everything, verify, and open again.
    const LETTERS: u64 = 32;
    let dir = tempfile::tempdir().unwrap();
    let (clean, crashed) = (dir.path().join("clean"), dir.path().join("crashed"));
    let (store, _) = open(&clean);
    let mut expected = HashMap::new();
    for n in 0..LETTERS {
        let id = store.bury(letter(n)).await.unwrap();
        expected.insert(id, n);
        if n % 8 == 3 {
            assert_eq!(store.bury(letter(n)).await.unwrap(), id);
        }
        if n % 8 == 5 {
            assert_eq!(store.remove(vec![id]).await.unwrap(), 1);
            expected.remove(&id);
        }
    }
    copy_dir(&clean, &crashed);
    store.close().await;

    let mut random = fastrand::Rng::with_seed(7);
    let mut cases = Vec::new();
    for image in [&clean, &crashed] {
        let mut files = Vec::new();
        files_in(image, &mut files);
        for file in files {
            let len = fs::metadata(&file).unwrap().len();
            let name = file.strip_prefix(image).unwrap().to_owned();
            let samples = if name.ends_with("db") || name.starts_with("journal") { 24 } else { 4 };
            for _ in 0..if len == 0 { 0 } else { samples } {
                let harm = if random.bool() { Harm::Cut } else { Harm::Flip };
                cases.push((image.clone(), name.clone(), random.u64(0..len), harm));
            }
            cases.push((image.clone(), name, 0, Harm::Delete));
        }
    }
    random.shuffle(&mut cases);
    let started = tokio::time::Instant::now();
    let mut done = 0;
    for (image, name, at, harm) in cases {
        if started.elapsed() > Duration::from_secs(25) {
            break;
        }
        let what = format!("{harm:?} at {at} of {} ({})", name.display(), image.display());
        let copy = dir.path().join(format!("copy-{done}"));
        copy_dir(&image, &copy);
        let file = copy.join(&name);
        let mut bytes = fs::read(&file).unwrap();
        let at_index = usize::try_from(at).unwrap();
        match harm {
            Harm::Flip => bytes[at_index] ^= 1 << random.u8(0..8),
            Harm::Cut => bytes.truncate(at_index),
            Harm::Delete => bytes.clear(),
        }
        fs::write(&file, bytes).unwrap();
        if harm == Harm::Delete {
            fs::remove_file(&file).unwrap();
        }

        let (store, report) = open(&copy);
        assert_eq!(report.down, None, "{what}");
        let (letters, damaged) = everything(&store).await;
        let verified = store.verify().await.unwrap();
        let own_file = name.starts_with("blobs");
        assert!(damaged.len() <= usize::from(own_file), "{what}: {damaged:?}");
        assert_eq!(verified.damaged, damaged, "{what}");
        assert_eq!(letters.len() + damaged.len(), expected.len(), "{what}: {report:?}");
        for letter in &letters {
            assert_eq!(expected.get(&letter.id), Some(&number_of(letter)), "{what}");
            assert_eq!(letter.body, body(number_of(letter)), "{what}");
        }
        assert_eq!(store.counts().values().sum::<u64>(), expected.len() as u64, "{what}");
        // It works on: a burial, a clean stop, and nothing is left to mend.
        store.bury(letter(LETTERS)).await.unwrap();
        store.close().await;
        let (store, report) = open(&copy);
        assert_eq!((report.incidents.len(), report.letters), (0, expected.len() as u64 + 1), "{what}: {report:?}");
        assert_eq!(store.verify().await.unwrap().damaged, damaged, "{what}");
        store.close().await;
        fs::remove_dir_all(copy).unwrap();
        done += 1;
    }
    println!("{done} damages, all mended");
    assert!(done >= 20, "only {done} damages were tried: the store is too slow for this test");
}

#[tokio::test]
async fn damage_that_opening_does_not_see_is_found_and_mended_by_verify() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    for n in 0..30 {
        store.bury(letter(n)).await.unwrap();
    }
    store.close().await;
    let mut files = Vec::new();
    files_in(&dir.path().join("journal"), &mut files);
    let mut bytes = fs::read(&files[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&files[0], bytes).unwrap();

    let (store, report) = open(dir.path());
    assert!(report.incidents.is_empty(), "a clean checkpoint is trusted: {report:?}");
    assert_eq!(everything(&store).await.0.len(), 30);
    let report = store.verify().await.unwrap();
    assert_eq!((report.segments_mended, report.rejournaled, report.letters), (1, 30, 30), "{report:?}");
    assert!(store.verify().await.unwrap().is_clean());
    let mut kept = Vec::new();
    files_in(&dir.path().join("journal"), &mut kept);
    assert!(kept.iter().any(|file| file.to_string_lossy().contains(".damaged-")), "{kept:?}");
    store.close().await;
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (store, _) = open(dir.path());
    assert_eq!(everything(&store).await.0.len(), 30);
}

/// A small file system of its own; `None`, loudly, where mounting is not permitted.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(megabytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "none"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        eprintln!("SKIPPED: this test needs to mount a tmpfs (run it as root)");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills it up but for `left` bytes.
    fn fill(&self, left: usize) -> PathBuf {
        let ballast = self.path().join("ballast");
        let mut file = fs::File::create(&ballast).unwrap();
        let block = vec![1_u8; 64 * 1024];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        let len = file.metadata().unwrap().len();
        file.set_len(len.saturating_sub(left as u64)).unwrap();
        ballast
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.0.path()).status().map(drop).unwrap_or_default();
    }
}

async fn until_writable(store: &Store) {
    let mut writable = store.watch_writable();
    tokio::time::timeout(Duration::from_secs(30), writable.wait_for(|writable| *writable)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_disk_that_runs_full_refuses_burials_and_nothing_else_and_recovers_by_itself() {
    let Some(disk) = Tmpfs::mount(64) else { return };
    let options = StoreOptions { free_bytes_min: 8 * 1024 * 1024, ..options() };
    let (store, _) = Store::open(&disk.path().join("store"), options).unwrap();
    let kept = store.bury(letter(1)).await.unwrap();
    let other = store.bury(letter(2)).await.unwrap();
    let ballast = disk.fill(4 * 1024 * 1024);
    assert!(matches!(store.bury(letter(3)).await, Err(DeadLetterError::Full)));
    assert!(!store.writable());
    assert_eq!(store.get(kept).await.unwrap().body, body(1));
    assert_eq!(store.remove(vec![other]).await.unwrap(), 1, "a purge is how an operator makes room");
    fs::remove_file(ballast).unwrap();
    until_writable(&store).await;
    store.bury(letter(3)).await.unwrap();
    assert_eq!(store.count(&LetterFilter::default()).await.unwrap(), 2);
}

#[tokio::test]
async fn a_write_that_meets_a_full_disk_loses_no_earlier_letter_and_the_store_comes_back() {
    // Method: no free-space gate, so that the journal or sled really gets the error.
    let Some(disk) = Tmpfs::mount(24) else { return };
    let options = StoreOptions { free_bytes_min: 0, ..options() };
    let dir = disk.path().join("store");
    let (store, _) = Store::open(&dir, options.clone()).unwrap();
    let ballast = disk.fill(2 * 1024 * 1024);
    let (mut kept, mut refused) = (Vec::new(), 0);
    for n in 0..2_000 {
        match store.bury(letter(n)).await {
            Ok(id) => kept.push((id, n)),
            Err(DeadLetterError::Full | DeadLetterError::Down { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
        if refused >= 10 {
            break;
        }
    }
    assert!(refused > 0 && !kept.is_empty(), "{refused} refused, {} kept", kept.len());
    fs::remove_file(ballast).unwrap();
    until_writable(&store).await;
    for (id, n) in &kept {
        assert_eq!(store.get(*id).await.unwrap().body, body(*n));
    }
    store.bury(letter(5_000)).await.unwrap();
    store.close().await;
    let (store, _) = Store::open(&dir, options).unwrap();
    for (id, n) in &kept {
        assert_eq!(store.get(*id).await.unwrap().body, body(*n));
    }
}

#[test]
fn an_answer_waits_for_two_syncs_one_of_the_journal_and_one_of_the_index() {
    // Goal: sled's `flush` does not sync on Linux, so ours must; `kill -9` cannot tell the difference, counting calls can.
    const BURIALS: usize = 20;
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let status = Command::new("strace")
        .args(["-f", "-y", "-e", "trace=fdatasync", "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "dead_letters::child_that_buries_a_few", "--nocapture"])
        .env(CHILD_DIR, format!("{}\n{BURIALS}", dir.path().join("store").display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let traced = fs::read_to_string(&trace).unwrap_or_default();
    if !status.is_ok_and(|status| status.success()) || traced.is_empty() {
        eprintln!("SKIPPED: this test needs strace and the permission to trace");
        return;
    }
    let syncs_of = |name: &str| traced.lines().filter(|line| line.contains(name)).count();
    assert!(syncs_of("/journal/") >= BURIALS, "{traced}");
    assert!(syncs_of("/index/db") >= BURIALS, "{traced}");
}

#[tokio::test]
#[ignore = "the child of the test that counts syncs"]
async fn child_that_buries_a_few() {
    #[expect(clippy::disallowed_methods, reason = "how the parent test tells its child what to do")]
    let Ok(told) = std::env::var(CHILD_DIR) else { return };
    let (dir, burials) = told.split_once('\n').unwrap();
    let (store, _) = open(&PathBuf::from(dir));
    for n in 0..burials.parse().unwrap() {
        store.bury(letter(n)).await.unwrap();
    }
    store.close().await;
}
