//! Two workers of one pool over real sockets, and peers that are none.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{
    orders::{Bound, Wish},
    *,
};
use crate::{
    dead_letters::DeadLetter,
    http::{
        access::Via,
        dead_letters::{
            errand::Deed,
            tests::{letter, show_soc},
        },
        guard::Caller,
        tests::{House, PATIENT},
    },
    model::{Role, Secret},
};

fn bearer(token: &str) -> Credential {
    Credential::bearer(&Secret::new(token)).unwrap()
}

fn pool(house: &House) -> Pool {
    pool_with(house, PATIENT)
}

fn pool_with(house: &House, patience: Patience) -> Pool {
    let desk = Desk::new(house.inside.clone(), &TaskTracker::new(), uuid::Uuid::new_v4());
    Pool::new(house.inside.clone(), desk, patience)
}

fn caller(role: Role) -> Caller {
    Caller { name: role.to_string(), role, via: Via::Token, from: std::net::SocketAddr::from(([127, 0, 0, 1], 1)) }
}

/// Two workers, and what the first one sees of both: the other is its only peer.
async fn pair() -> ([House; 2], Pool) {
    let [one, two] = House::pair().await;
    one.meet(&[format!("http://{}", two.doors.api)]);
    let pool = pool(&one);
    ([one, two], pool)
}

async fn bury(house: &House, names: &[&str]) {
    for name in names {
        house.inside.store.bury(letter(name, "soc", None)).await.unwrap();
    }
}

async fn left(house: &House) -> u64 {
    house.inside.store.count(&LetterFilter::default()).await.unwrap()
}

fn decisions(listed: &Listed) -> Vec<&str> {
    listed.letters.iter().filter_map(|(_, letter): &(String, DeadLetter)| letter.decision_id.as_deref()).collect()
}

#[tokio::test]
async fn the_letters_of_all_workers_are_one_list_with_causes_added_up() {
    let ([one, two], pool) = pair().await;
    // In turn, so that they lie between one another in time.
    for number in 0..3 {
        bury(&one, &[&format!("one-{number}")]).await;
        bury(&two, &[&format!("two-{number}")]).await;
    }
    let (auditor, everything) = (bearer("auditor"), LetterFilter::default());
    let Heard { of, unheard } = pool.letters(&everything, None, 4, Some(&auditor)).await;
    assert!(unheard.is_empty(), "{unheard:?}");
    assert_eq!(decisions(&of), ["two-2", "one-2", "two-1", "one-1"]);
    let older = pool.letters(&everything, of.next, 4, Some(&auditor)).await;
    assert_eq!((decisions(&older.of), older.of.next), (vec!["two-0", "one-0"], None));
    assert_eq!(pool.total(Some(&auditor)).await.of, 6);
    let found = pool.find(of.letters[0].1.id, Some(&auditor)).await.of.unwrap();
    assert_eq!(
        (found.letter.decision_id.as_deref(), found.server),
        (Some("two-2"), format!("http://{}", two.doors.api))
    );
    assert!(found.worker.is_some() && !found.letter.body.is_empty());
    let nobody = pool.find("0197a2b4-0000-7000-8000-000000000001".parse().unwrap(), Some(&auditor)).await;
    assert!(nobody.of.is_none() && nobody.unheard.is_empty());
}

#[tokio::test]
async fn a_worker_among_its_own_peers_is_asked_once() {
    let [one, two] = House::pair().await;
    bury(&one, &["one-0", "one-1"]).await;
    bury(&two, &["two-0"]).await;
    // Over the door of the house itself, where it is one of its own peers.
    let page = crate::http::console::tests::look(&one, "auditor", "/dead-letters").await;
    assert!(page.contains("3 dead letters") && page.contains("<b>3</b>"), "{page}");
    assert_eq!(page.matches("two-0").count(), 1, "{page}");
    assert_eq!(page.matches(">one-0<").count(), 1, "{page}");
    assert!(page.contains(OWN) && page.contains(&two.doors.api.to_string()), "{page}");
    assert!(!page.contains(&one.doors.api.to_string()), "{page}");
}

#[tokio::test]
async fn who_is_silent_or_refuses_is_named_and_costs_the_others_nothing() {
    let [one, two] = House::pair().await;
    bury(&two, &["two-0"]).await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    one.meet(&[
        format!("http://{gone}"),
        format!("http://{}", two.doors.api),
        String::from("http://no.such.host.invalid:1"),
    ]);
    let pool = pool(&one);
    let heard = pool.causes(&LetterFilter::default(), Some(&bearer("auditor"))).await;
    let counts: Vec<usize> = heard.of.iter().map(|(_, grouped)| grouped.causes.len()).collect();
    assert_eq!(counts, [0, 1]);
    let named: Vec<&str> = heard.unheard.iter().map(|one| one.server.as_str()).collect();
    assert!(
        named.contains(&&*format!("http://{gone}")) && named.contains(&"http://no.such.host.invalid:1"),
        "{named:?}"
    );
    // Who is a stranger to a peer is refused there, and its own worker's letters are shown all the same.
    let heard = pool.causes(&LetterFilter::default(), Some(&bearer("of another pool"))).await;
    assert_eq!(heard.of.len(), 1);
    let refused =
        |one: &Unheard| matches!(one.trouble, Trouble::Refused { status: http::StatusCode::UNAUTHORIZED, .. });
    assert_eq!(heard.unheard.iter().filter(|one| refused(one)).count(), 1, "{:?}", heard.unheard);
}

/// Answers every request with this and keeps what was asked.
async fn scripted(answer: String, tasks: &TaskTracker) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&asked);
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.is_ok_and(|bytes| bytes > 0) {}
            kept.lock().unwrap().push(String::from_utf8_lossy(&request).to_ascii_lowercase());
            stream.write_all(answer.as_bytes()).await.ok();
        }
    });
    (url, asked)
}

#[tokio::test]
async fn a_credential_goes_to_peers_alone_and_nothing_beside_it() {
    // Goal: what a caller proves who it is with reaches the peers, without its other cookies, and never who they send on to.
    let tasks = TaskTracker::new();
    let (elsewhere, stolen) = scripted(String::from("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"), &tasks).await;
    let redirect = format!(
        "HTTP/1.1 302 Found\r\nlocation: {elsewhere}/api/dead-letters\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let (peer, asked) = scripted(redirect, &tasks).await;
    let house = House::open().await;
    house.meet(&[peer]);
    let page =
        crate::http::console::tests::look_with(&house, "auditor", "/dead-letters", "other=secret; interven_said=x")
            .await;
    assert!(page.contains("could not be asked"), "{page}");
    let asked = asked.lock().unwrap().clone();
    assert!(!asked.is_empty());
    for request in &asked {
        assert_eq!(request.matches("cookie: interven_session=").count(), 1, "{request}");
        for other in ["secret", "interven_said", "authorization", "origin", "sec-fetch", "referer"] {
            assert!(!request.contains(other), "{other}: {request}");
        }
    }
    assert!(stolen.lock().unwrap().is_empty(), "a redirect was followed");
    let credential = bearer("very-secret-token");
    assert!(!format!("{credential:?}").contains("very-secret"));
}

#[tokio::test]
async fn an_order_reaches_every_worker_that_was_counted_and_nothing_that_died_later() {
    let ([one, two], pool) = pair().await;
    bury(&one, &["one-0", "one-1"]).await;
    bury(&two, &["two-0"]).await;
    let (admin, filter) = (bearer("admin"), LetterFilter::default());
    let tally = pool.tally(&filter, Some(&admin)).await;
    assert_eq!((tally.count(), tally.counted.len()), (3, 2));
    // They had died before the count, and were still on their way into the store.
    let long_before = "2026-01-01T00:00:00Z".parse().unwrap();
    for (house, name) in [(&one, "late-0"), (&two, "late-1")] {
        let late = DeadLetter { died_at: long_before, ..letter(name, "soc", None) };
        house.inside.store.bury(late).await.unwrap();
    }
    let wish = |deed, dry_run| Wish { deed, filter: filter.clone(), bounds: tally.bounds(), dry_run };
    let give = async |wish| pool.give(wish, caller(Role::Admin), Some(admin.clone())).await;
    let counted = give(wish(Deed::Purge, true)).await;
    assert_eq!(counted.iter().map(|done| done.summary.as_ref().unwrap().report.purged).sum::<u64>(), 3);
    assert_eq!((left(&one).await, left(&two).await), (3, 2), "a dry run did something");
    let done = give(wish(Deed::Purge, false)).await;
    assert!(done.iter().all(|done| done.trouble.is_none()), "{done:?}");
    assert_eq!((left(&one).await, left(&two).await), (1, 1));

    for house in [&one, &two] {
        let left = house.inside.store.list(&LetterFilter::default(), None).await.unwrap();
        assert!(left.letters[0].decision_id.as_deref().is_some_and(|id| id.starts_with("late")), "{left:?}");
    }

    // A worker that has restarted since has another id, and is given no order.
    let mut bounds = tally.bounds();
    bounds[0].worker = uuid::Uuid::new_v4();
    let done = give(Wish { bounds, ..wish(Deed::Purge, false) }).await;
    let lost: Vec<&str> = done.iter().filter_map(|done| Some(done.trouble.as_ref()?.why())).collect();
    assert!(lost.len() == 1 && lost[0].contains("count again"), "{done:?}");
}

#[tokio::test]
async fn a_worker_that_has_restarted_since_the_count_is_named_and_nobody_else_is_blamed() {
    let ([one, two], pool) = pair().await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    one.meet(&[format!("http://{gone}"), format!("http://{}", two.doors.api)]);
    bury(&two, &["two-0"]).await;
    let (admin, filter) = (bearer("admin"), LetterFilter::default());
    let tally = pool.tally(&filter, Some(&admin)).await;
    let mut bounds = tally.bounds();
    assert_eq!((bounds.len(), tally.unheard.len()), (1, 1), "{tally:?}");
    bounds[0].worker = uuid::Uuid::new_v4();
    let wish = Wish { deed: Deed::Purge, filter, bounds, dry_run: false };
    let done = pool.give(wish, caller(Role::Admin), Some(admin)).await;
    let told: Vec<_> = done.iter().map(|done| (done.name.clone(), done.trouble.as_ref().unwrap().why())).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].0 == format!("http://{}", two.doors.api) && told[0].1.contains("count again"), "{told:?}");
    assert_eq!(left(&two).await, 1);
}

#[tokio::test]
async fn an_order_finds_the_worker_on_which_it_was_counted_whatever_it_is_called_there() {
    // Goal: a browser that counts at one worker and orders at the next one, as behind a balancer, reaches both.
    let [one, two] = House::pair().await;
    bury(&one, &["one-0"]).await;
    bury(&two, &["two-0"]).await;
    let path = "/dead-letters/purge?channel=soc";
    let page = crate::http::console::tests::look(&one, "admin", path).await;
    let counted: Vec<(&str, &str)> = page
        .split("name=\"counted\" value=\"")
        .skip(1)
        .filter_map(|rest| rest.split_once('"')?.0.split_once('@'))
        .collect();
    assert_eq!(counted.len(), 2, "{page}");
    let bounds = counted.into_iter().map(|(worker, rest)| {
        let (up_to, server) = rest.split_once('@').unwrap();
        Bound { worker: worker.parse().unwrap(), up_to: up_to.parse().unwrap(), server: server.to_owned() }
    });
    let (admin, wanted) = (bearer("admin"), LetterFilter { channel: "soc".parse().ok(), ..LetterFilter::default() });
    let wish = Wish { deed: Deed::Purge, filter: wanted, bounds: bounds.collect(), dry_run: false };
    let done = pool(&two).give(wish, caller(Role::Admin), Some(admin)).await;
    assert!(done.len() == 2 && done.iter().all(|done| done.trouble.is_none()), "{done:?}");
    assert_eq!((left(&one).await, left(&two).await), (0, 0));
}

/// Takes connections, and does this to each; how many there were.
async fn taking<F: Future<Output = ()> + Send>(
    tasks: &TaskTracker,
    treat: impl Fn(tokio::net::TcpStream) -> F + Send + 'static,
) -> (String, Arc<std::sync::atomic::AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let taken = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&taken);
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            treat(stream).await;
        }
    });
    (url, taken)
}

#[tokio::test]
async fn a_peer_that_hangs_is_waited_for_once_and_named_all_the_time() {
    let [one, two] = House::pair().await;
    bury(&two, &["two-0"]).await;
    let (tasks, held) = (TaskTracker::new(), Arc::new(Mutex::new(Vec::new())));
    let (hung, taken) = taking(&tasks, move |stream| {
        let held = Arc::clone(&held);
        async move { held.lock().unwrap().push(stream) }
    })
    .await;
    one.meet(&[hung.clone(), format!("http://{}", two.doors.api)]);
    // Long enough for the other one, however busy this machine is.
    let patience = Patience { look: Duration::from_secs(8), ..PATIENT };
    let (pool, admin, filter) = (pool_with(&one, patience), bearer("admin"), LetterFilter::default());
    let named = |unheard: &[Unheard]| unheard.len() == 1 && unheard[0].server == hung;
    let first = pool.causes(&filter, Some(&admin)).await;
    assert!(named(&first.unheard) && first.of.len() == 2, "{first:?}");
    let waited = taken.load(std::sync::atomic::Ordering::SeqCst);
    let tally = pool.tally(&filter, Some(&admin)).await;
    assert!(named(&tally.unheard) && tally.count() == 1, "{tally:?}");
    let wish = Wish { deed: Deed::Purge, filter, bounds: tally.bounds(), dry_run: false };
    let done = pool.give(wish, caller(Role::Admin), Some(admin)).await;
    assert!(done.len() == 1 && done[0].trouble.is_none(), "{done:?}");
    assert_eq!((left(&two).await, taken.load(std::sync::atomic::Ordering::SeqCst)), (0, waited));
}

#[tokio::test]
async fn a_peer_that_never_stops_sending_is_heard_for_a_few_megabytes() {
    let house = House::open().await;
    let (tasks, sent) = (TaskTracker::new(), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let counted = Arc::clone(&sent);
    let (endless, _) = taking(&tasks, move |mut stream| {
        let sent = Arc::clone(&counted);
        async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.is_ok_and(|bytes| bytes > 0) {}
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n").await.ok();
            let spaces = vec![b' '; 65_536];
            while stream.write_all(&spaces).await.is_ok() {
                sent.fetch_add(65_536, std::sync::atomic::Ordering::SeqCst);
            }
        }
    })
    .await;
    house.meet(&[endless]);
    let heard = pool(&house).causes(&LetterFilter::default(), Some(&bearer("auditor"))).await;
    assert!(heard.unheard.len() == 1 && heard.unheard[0].trouble.why().contains("larger than 8 MiB"), "{heard:?}");
    // What the sockets hold comes on top of it.
    assert!(sent.load(std::sync::atomic::Ordering::SeqCst) < 64 * 1024 * 1024);
}

#[tokio::test]
async fn a_letter_that_dies_again_after_the_count_is_another_one_and_is_left_alone() {
    let ([one, two], pool) = pair().await;
    show_soc(&one);
    show_soc(&two);
    let admin = bearer("admin");
    for (house, deed) in [(&one, Deed::Purge), (&two, Deed::Purge), (&one, Deed::Replay), (&two, Deed::Replay)] {
        let first = letter("again", "soc", None);
        let id = house.inside.store.bury(first.clone()).await.unwrap();
        for filter in [LetterFilter::default(), LetterFilter { ids: vec![id], ..LetterFilter::default() }] {
            let tally = pool.tally(&filter, Some(&admin)).await;
            assert_eq!((tally.count(), tally.unheard.len()), (1, 0), "{tally:?}");
            assert_eq!(house.inside.store.bury(first.clone()).await.unwrap(), id, "it has one letter");
            let wish = Wish { deed, filter, bounds: tally.bounds(), dry_run: false };
            let done = pool.give(wish, caller(Role::Admin), Some(admin.clone())).await;
            assert!(done.iter().all(|done| done.trouble.is_none()), "{done:?}");
            assert_eq!(left(house).await, 1, "{deed:?}");
        }
        house.inside.store.remove(vec![id]).await.unwrap();
    }
}

#[tokio::test]
async fn who_may_not_purge_may_not_do_so_over_a_peer_either() {
    let ([_one, two], pool) = pair().await;
    show_soc(&two);
    bury(&two, &["two-0"]).await;
    let (analyst, filter) = (bearer("analyst"), LetterFilter::default());
    let tally = pool.tally(&filter, Some(&analyst)).await;
    let wish = |deed| Wish { deed, filter: filter.clone(), bounds: tally.bounds(), dry_run: false };
    let done = pool.give(wish(Deed::Purge), caller(Role::Analyst), Some(analyst.clone())).await;
    assert!(done.len() == 1 && done[0].trouble.as_ref().unwrap().why().contains("may not purge"), "{done:?}");
    assert_eq!(left(&two).await, 1);
    let done = pool.give(wish(Deed::Replay), caller(Role::Analyst), Some(analyst)).await;
    assert_eq!(done[0].summary.as_ref().unwrap().report.replay.replayed, 1, "{done:?}");
    assert_eq!(left(&two).await, 0);
}

#[tokio::test]
async fn channels_are_told_as_the_whole_pool_sees_them() {
    let ([one, two], pool) = pair().await;
    show_soc(&two);
    two.channels.send_modify(|shown| {
        let mut one = shown[0].clone();
        one.configured = json!({"id": "soc", "unreadable": "the key is another one"});
        one.unreadable = true;
        *shown = Arc::from([one]);
    });
    one.channels.send_modify(|shown| {
        let mut soc = two.channels.borrow()[0].clone();
        (soc.configured, soc.unreadable) = (json!({"id": "soc"}), false);
        *shown = Arc::from([soc]);
    });
    let Heard { of, unheard } = pool.channels(Some(&bearer("auditor"))).await;
    assert!(unheard.is_empty() && of.workers == 2 && of.channels.len() == 1, "{of:?} {unheard:?}");
    let soc = &of.channels[0];
    assert_eq!((&soc["state"], soc["servers"].as_array().unwrap().len()), (&json!("unreadable"), 2), "{soc}");
}
