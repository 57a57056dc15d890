//! Every acknowledged write survives `kill -9` of the process, at any moment, a hundred times.
//!
//! The test starts itself as a writer, which says on its standard output what was acknowledged, and kills it at
//! random moments. A line that reached the pipe was acknowledged before; the reopened file must hold it. SIGKILL
//! loses no page cache: what this proves is that no answer precedes its commit and that any torn file recovers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use penstock_store::embedded::{Embedded, EmbeddedOptions};
use penstock_store::{Expect, ListRequest, Mutation, Revision, Store, Write};

const FILES: usize = 10;
const ROUNDS_PER_FILE: usize = 10;
const WRITERS: usize = 16;
/// The argument that makes this program the writer.
const WRITER: &str = "write-until-killed";
const NAME: &str = "every_acknowledged_write_survives_kill";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [WRITER, path, round] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return runtime().block_on(write_until_killed(Path::new(path), round));
    }
    // What runners of tests ask of a test binary, as libtest answers it.
    let is_given = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if is_given("--list") {
        if !is_given("--ignored") {
            println!("{NAME}: test");
        }
        return;
    }
    // Flags with a value of their own; what follows any other is a filter.
    let valued = ["--format", "--color", "--test-threads", "--skip", "--logfile", "-Z"];
    let mut before = "";
    let mut filters = Vec::new();
    for argument in &arguments {
        if !argument.starts_with('-') && !valued.contains(&before) {
            filters.push(argument.as_str());
        }
        before = argument;
    }
    let exact = is_given("--exact");
    let is_wanted = |filter: &&str| if exact { NAME == *filter } else { NAME.contains(filter) };
    if is_given("--ignored") || !(filters.is_empty() || filters.iter().any(is_wanted)) {
        return println!("{NAME} was not asked for");
    }
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").subsec_nanos().into();
    println!("{NAME} (seed {seed})");
    let start = Instant::now();
    let acknowledged = every_acknowledged_write_survives_kill(seed);
    let seconds = start.elapsed().as_secs_f32();
    println!(
        "ok: {} kills, {acknowledged} acknowledged writes, none lost, {seconds:.1} s",
        FILES * ROUNDS_PER_FILE
    );
}

/// In every other round checkpoints are made all the time, so that many kills hit one: by the journal's bound, by age,
/// and when idle.
fn options(round: usize) -> EmbeddedOptions {
    if round.is_multiple_of(2) {
        return EmbeddedOptions::default();
    }
    EmbeddedOptions {
        journal_bytes_max: 16 << 10,
        checkpoint_idle: Duration::from_millis(1),
        checkpoint_age_max: Duration::from_millis(20),
        ..EmbeddedOptions::default()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

fn every_acknowledged_write_survives_kill(seed: u64) -> usize {
    let runtime = runtime();
    let mut random = Random(seed | 1);
    let mut total = 0;
    for file in 0..FILES {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("store.redb");
        // Everything acknowledged in this file so far: key to value and revision.
        let mut expected = BTreeMap::new();
        for round in 0..ROUNDS_PER_FILE {
            let life = Duration::from_micros(random.below(100_000));
            let acknowledged = run_and_kill(&path, round, life);
            assert!(!acknowledged.is_empty(), "file {file} round {round}: nothing was acknowledged");
            total += acknowledged.len();
            expected.extend(acknowledged);
            runtime.block_on(check(&path, &expected, &format!("file {file} round {round} after {life:?}")));
        }
    }
    total
}

/// Starts a writer, kills it some time after its first acknowledgement, and gives all that it acknowledged.
fn run_and_kill(path: &Path, round: usize, life: Duration) -> Vec<(String, (String, u64))> {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program)
        .args([WRITER.as_ref(), path.as_os_str(), round.to_string().as_ref()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the writer starts");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut lines = String::new();
    output.read_line(&mut lines).expect("the writer's first line");
    let reader = thread::spawn(move || {
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut output, &mut rest).map(|_| rest)
    });
    // The moment of the fault, not a wait for anything.
    thread::sleep(life);
    child.kill().expect("SIGKILL");
    child.wait().expect("the writer is gone");
    let rest = reader.join().expect("the reader").expect("the pipe is readable");
    lines.push_str(str::from_utf8(&rest).expect("text"));
    // A line without its end was cut by the kill.
    lines.split_inclusive('\n').filter_map(|line| parse(line.strip_suffix('\n')?)).collect()
}

/// `key value revision`
fn parse(line: &str) -> Option<(String, (String, u64))> {
    let mut words = line.split(' ');
    Some((words.next()?.to_owned(), (words.next()?.to_owned(), words.next()?.parse().ok()?)))
}

async fn check(path: &Path, expected: &BTreeMap<String, (String, u64)>, context: &str) {
    let store = Embedded::open(path).await.unwrap_or_else(|error| panic!("{context}: {error}"));
    let request = ListRequest { prefix: "/".to_owned(), ..ListRequest::default() };
    let page = store.list(request).await.unwrap_or_else(|error| panic!("{context}: {error}"));
    let found: BTreeMap<&str, _> = page.records.iter().map(|record| (record.key.as_str(), record)).collect();
    for (key, (value, revision)) in expected {
        let record = found.get(key.as_str()).unwrap_or_else(|| panic!("{context}: {key} is lost"));
        assert!(page.revision >= Revision(*revision), "{context}: the revision went back");
        // A counter may have been moved on by a write whose acknowledgement was cut off.
        let later = record.modified > Revision(*revision) && key.starts_with("/counter/");
        assert!(later || record.value == value.as_bytes(), "{context}: {key} is {record:?}, not {value}");
        assert!(later || record.modified == Revision(*revision), "{context}: {key} has another revision");
    }
    store.close().await;
}

/// Creates records and moves counters, saying what was acknowledged, until the end.
async fn write_until_killed(path: &Path, round: &str) {
    let options = options(round.parse().expect("a number"));
    let store = Embedded::open_with(path, options).await.expect("the store opens after every kill");
    let writers = (0..WRITERS).map(|writer| {
        let (store, round) = (store.clone(), round.to_owned());
        tokio::spawn(async move {
            for n in 0_u64.. {
                let key = match n % 3 {
                    0 => format!("/counter/{writer}"),
                    _ => format!("/records/{round}/{writer}/{n}"),
                };
                let value = format!("{round}.{n}");
                let mutation = Mutation::Put { value: value.clone().into(), lease_ttl_seconds: None };
                let write = Write { key: key.clone(), expect: Expect::Any, mutation };
                let revision = store.commit(write).await.expect("commits work").revision;
                // One call writes one line: shorter than PIPE_BUF, it is not mixed with another's.
                let line = format!("{key} {value} {revision}\n");
                std::io::stdout().lock().write_all(line.as_bytes()).expect("the pipe is open");
            }
        })
    });
    futures::future::join_all(writers).await;
}

/// Xorshift: enough to choose moments.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
