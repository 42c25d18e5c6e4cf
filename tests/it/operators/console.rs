//! The same pool, seen from the console of one of its workers: with a session, over real sockets, as a browser without scripts.

use interven_alerts::dead_letters::LetterId;

use super::*;

/// What a browser keeps between one page and the next.
struct Visitor {
    client: reqwest::Client,
    server: String,
    cookies: String,
}

impl Visitor {
    /// Signs in at a worker.
    async fn sign_in(worker: &WorkerProcess, role: &str) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_mins(1))
            .build()
            .unwrap();
        let mut visitor = Self { client, server: worker.server(), cookies: String::new() };
        let (status, _) = visitor.post("/sign-in", &format!("token=token-of-{role}&next=/")).await;
        assert_eq!(status, 303, "the sign-in of {role} failed");
        visitor
    }

    async fn get(&mut self, path: &str) -> (u16, String) {
        let request = self.client.get(format!("{}{path}", self.server)).header("cookie", self.cookies.clone());
        self.send(request).await
    }

    /// A page to which every worker has told its part. One that stalls while it is looked at is left alone for a while.
    async fn whole(&mut self, path: &str) -> String {
        let look = async || {
            let (status, page) = self.get(path).await;
            assert_eq!(status, 200, "{page}");
            (!page.contains("could not be asked")).then_some(page)
        };
        eventually("every worker tells its part", PATIENCE, look).await
    }

    /// Sends a form. Where the answer leads elsewhere, its text is where.
    async fn post(&mut self, path: &str, form: &str) -> (u16, String) {
        let request = self.client.post(format!("{}{path}", self.server)).header("cookie", self.cookies.clone());
        let request = request.header("sec-fetch-site", "same-origin").body(form.to_owned());
        self.send(request.header("content-type", "application/x-www-form-urlencoded")).await
    }

    async fn send(&mut self, request: reqwest::RequestBuilder) -> (u16, String) {
        let reply = request.send().await.expect("the console answers");
        for cookie in reply.headers().get_all("set-cookie") {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            let name = pair.split('=').next().unwrap();
            let mut kept: Vec<&str> =
                self.cookies.split("; ").filter(|one| !one.starts_with(&format!("{name}="))).collect();
            kept.push(pair);
            self.cookies = kept.join("; ");
        }
        let leads = reply.headers().get("location").map(|to| to.to_str().unwrap().to_owned());
        let status = reply.status().as_u16();
        (status, leads.unwrap_or(reply.text().await.unwrap()))
    }

    /// Sends the form of this page with everything that it holds, and gives the page to which that leads.
    async fn confirm(&mut self, page: &str) -> String {
        let to = page.split("method=\"post\" action=\"/dead-letters").nth(1).unwrap().split('"').next().unwrap();
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        for input in page.split("<input type=\"hidden\" ").skip(1) {
            let value = |name: &str| input.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap();
            form.append_pair(value("name"), &value("value").replace("&#38;", "&"));
        }
        let (status, leads) = self.post(&format!("/dead-letters{to}"), &form.finish()).await;
        assert_eq!(status, 303, "{leads}");
        let (status, page) = self.get(&leads).await;
        assert_eq!(status, 200, "{page}");
        page
    }
}

/// The stage, with workers that are one another's peers: each by the addresses of both, and so by its own, too.
async fn met(what: &str) -> Stage {
    let stage = Stage::set(what).await;
    let peers = stage.servers().split(',').map(|url| format!("\"{url}\"")).collect::<Vec<_>>().join(", ");
    for worker in &stage.pool {
        worker.reconfigure(&format!("peers = [{peers}]\n{}", stage.config));
        worker.hang_up();
    }
    for worker in &stage.pool {
        // A reload takes the peers over.
        let look = async || {
            let (_, page) = worker.get_text("/dead-letters", "token-of-auditor").await;
            page.contains("61 dead letters").then_some(())
        };
        eventually("a worker shows the letters of both", PATIENCE, look).await;
    }
    stage
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_of_any_worker_shows_replays_and_purges_the_dead_letters_of_all() {
    let stage = met("console").await;
    let slack = stage.scene.stand_in("soc");
    // Signed in at the first, and led by the load balancer to the second.
    let mut analyst = Visitor::sign_in(&stage.pool[0], "analyst").await;
    analyst.server = stage.pool[1].server();
    let page = analyst.whole("/dead-letters").await;
    for says in ["61 dead letters", "<b>55</b>", "<b>5</b>", "<b>1</b>", ">two-24<", "this worker", "id=\"replay-all\""]
    {
        assert!(page.contains(says), "{says}: {page}");
    }
    assert!(!page.contains("purge-all"), "{page}");
    // The list goes on over both stores.
    let older = page.split("id=\"older\" href=\"").nth(1).unwrap().split('"').next().unwrap().replace("&#38;", "&");
    let rest = analyst.whole(&older).await;
    assert!(rest.contains(">one-0<") && !rest.contains(">two-24<"), "{rest}");
    let narrowed = analyst.whole("/dead-letters?reason=expired&channel=soc").await;
    assert!(narrowed.contains("5 dead letters") && narrowed.contains(">old-0<"), "{narrowed}");
    // A letter that the other worker has.
    let found = analyst.whole("/dead-letters?decision=one-7").await;
    let links = found.split("href=\"/dead-letters/").skip(1).map(|rest| rest.split('"').next().unwrap());
    let id = links.into_iter().find(|id| id.parse::<LetterId>().is_ok()).unwrap();
    let shown = async || Some(analyst.get(&format!("/dead-letters/{id}")).await).filter(|(status, _)| *status == 200);
    let (_, letter) = eventually("the letter is shown", PATIENCE, shown).await;
    assert!(letter.contains("one-7") && letter.contains(&stage.pool[0].server()), "{id}: {letter}");

    let question = analyst.whole("/dead-letters/replay").await;
    assert!(question.contains("Send 61 dead letters to soc again?"), "{question}");
    assert!(question.contains("1 of them stay where they are: their approvals have expired"), "{question}");
    assert_eq!((stage.letters().await, slack.counters().requests), (61, 0), "to ask did something");
    let told = analyst.confirm(&question).await;
    assert!(
        told.contains("Replayed 60 dead letters.") && told.contains("1 skipped: the approval has expired."),
        "{told}"
    );
    assert!(analyst.whole("/dead-letters").await.contains("1 dead letter"), "{told}");
    eventually("all are told", PATIENCE, async || (slack.different_ids() == 60).then_some(())).await;
    assert_eq!((slack.counters().violations, stage.scene.duplicates()), (0, 0), "the limit or a letter was broken");
    for worker in &stage.pool {
        let replayed = worker.metrics().await.sum("replayed_total", &["channel=\"soc\""]);
        assert_eq!(replayed, 30, "each worker replays its own");
        let audit = |line: &str| {
            ["interven_alerts::audit", "replay_dead_letters", "the-analyst", "replayed 30"]
                .iter()
                .all(|word| line.contains(word))
        };
        assert!(worker.logs().lines().any(audit), "an order over a peer is no audit line there");
    }
    let audited = |what: &str, words: [&str; 2]| {
        let line = |line: &str| {
            ["interven_alerts::audit", what, "of 1 other worker"].iter().chain(&words).all(|word| line.contains(word))
        };
        stage.pool[1].logs().lines().filter(|found| line(found)).count()
    };
    // With who gave it, whom the peer cannot see: once at its beginning, and once at its end.
    for outcome in ["begun", "replayed 30 of 31; 1 skipped"] {
        assert_eq!(audited("replay_dead_letters", ["the-analyst", outcome]), 1, "{outcome}: {}", stage.pool[1].logs());
    }

    let (status, refused) = analyst.get("/dead-letters/purge").await;
    assert!(status == 403 && refused.contains("may not purge"), "{refused}");
    let (status, _) = analyst.post("/dead-letters/purge", "reason=approval_expired").await;
    assert_eq!((status, stage.letters().await), (403, 1));
    let mut admin = Visitor::sign_in(&stage.pool[1], "admin").await;
    let question = admin.whole("/dead-letters/purge?reason=approval_expired").await;
    assert!(question.contains("Delete 1 dead letter for good?"), "{question}");
    let told = admin.confirm(&question).await;
    assert!(told.contains("Purged 1 dead letter.") && stage.letters().await == 0, "{told}");
    // Where a worker has nothing of it itself, too.
    for outcome in ["begun", "purged 1 of 1"] {
        let count = audited("purge_dead_letters", ["reason=approval_expired", outcome]);
        assert_eq!(count, 1, "{outcome}: {}", stage.pool[1].logs());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_down_is_named_on_the_page_and_the_others_letters_are_there() {
    let mut stage = met("halved").await;
    let second = stage.pool[1].server();
    let mut admin = Visitor::sign_in(&stage.pool[0], "admin").await;
    let question = admin.whole("/dead-letters/purge?reason=refused").await;
    assert!(question.contains("Delete 55 dead letters for good?"), "{question}");
    stage.pool[1].kill();
    let (status, page) = admin.get("/dead-letters").await;
    assert!(status == 200 && page.contains("31 dead letters"), "{page}");
    assert!(page.contains(&format!("{second} could not be asked")), "{page}");
    // What had been counted before is done as far as that is possible, and the rest is told.
    let told = admin.confirm(&question).await;
    assert!(told.contains("Purged 30 dead letters.") && told.contains(&second), "{told}");
    let (_, nobody) = admin.get("/dead-letters/0197a2b4-0000-7000-8000-000000000001").await;
    assert!(nobody.contains(&second) && nobody.contains("may have it"), "{nobody}");
}
