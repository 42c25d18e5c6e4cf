//! The forms of channels as a browser sends them, against a real worker: what is wrong stands at its field, two who edit one channel
//! lose nothing, and no page ever shows a secret.

use interven_alerts::{
    model::Reply,
    stand_ins::{Platform, Script, StandIn, Step},
};
use serde_json::json;

use crate::support::{
    eventually,
    scene::token_of,
    worker::{PATIENCE, WorkerProcess},
};

/// Secrets that appear nowhere but in what is typed. Any eight characters of one of them in a row are a leak.
const HOOK: &str = "kQ7vXw2mZr9LpT4nHd6s";
const OTHER_HOOK: &str = "Ww3cTyU8iOp5lKjHgFdS";
const SIGNING: &str = "8fGhJ3kLqW5eRtY7uIoP";

/// Somebody with a browser, who is signed in.
struct Person {
    client: reqwest::Client,
    server: String,
    session: String,
}

/// What a browser gets.
struct Page {
    status: u16,
    location: String,
    body: String,
    cookies: String,
}

impl Page {
    /// The value of a hidden input.
    fn hidden(&self, name: &str) -> String {
        let mark = format!("<input type=\"hidden\" name=\"{name}\" value=\"");
        let rest = self.body.split(&mark).nth(1).unwrap_or_else(|| panic!("no hidden {name} in {}", self.body));
        rest.split('"').next().unwrap().to_owned()
    }

    /// What is said to be wrong with this field.
    fn fault(&self, id: &str) -> String {
        let mark = format!("<p class=\"fault\" id=\"fault-{id}\">");
        let rest = self.body.split(&mark).nth(1).unwrap_or_else(|| panic!("nothing wrong with {id} in {}", self.body));
        rest.split("</p>").next().unwrap().to_owned()
    }
}

impl Person {
    async fn sign_in(worker: &WorkerProcess, role: &str) -> Self {
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let client = client.timeout(PATIENCE).build().unwrap();
        let mut person = Self { client, server: worker.server(), session: String::new() };
        let page = person.post("/sign-in", &[("token", &format!("token-of-{role}")), ("next", "/")]).await;
        assert_eq!(page.status, 303, "{}", page.body);
        person.session = page.cookies;
        person
    }

    async fn ask(&self, request: reqwest::RequestBuilder, said: &str) -> Page {
        let request =
            request.header("cookie", format!("{}{said}", self.session)).header("accept", "text/html,*/*;q=0.8");
        let request = request.header("sec-fetch-site", "same-origin").header("sec-fetch-mode", "navigate");
        let answer = request.send().await.unwrap();
        let texts =
            |name: &str| answer.headers().get_all(name).iter().map(|one| one.to_str().unwrap()).collect::<Vec<_>>();
        let cookies: String =
            texts("set-cookie").iter().flat_map(|one| [one.split(';').next().unwrap(), "; "]).collect();
        let location = texts("location").concat();
        let status = answer.status().as_u16();
        Page { status, location, cookies, body: answer.text().await.unwrap() }
    }

    async fn get(&self, path: &str) -> Page {
        self.ask(self.client.get(format!("{}{path}", self.server)), "").await
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = self.client.post(format!("{}{path}", self.server)).body(body);
        self.ask(request.header("content-type", "application/x-www-form-urlencoded"), "").await
    }

    /// Sends a form that leads to a page, and gives that page, with what it says has been done.
    async fn done(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        let answer = self.post(path, fields).await;
        assert_eq!(answer.status, 303, "{path}: {}", answer.body);
        self.ask(self.client.get(format!("{}{}", self.server, answer.location)), &answer.cookies).await
    }
}

fn assert_no_secret(what: &str, text: &str) {
    for secret in [HOOK, OTHER_HOOK, SIGNING] {
        for start in 0..=secret.len() - 8 {
            let piece = &secret[start..start + 8];
            assert!(!text.contains(piece), "{what} tells {piece} of {secret}");
        }
    }
}

async fn worker() -> WorkerProcess {
    let mut worker = WorkerProcess::new(&["auditor", "analyst", "admin"].map(token_of).concat());
    worker.start_ready().await;
    worker
}

fn hook(slack: &StandIn, secret: &str) -> String {
    format!("http://127.0.0.1:{}/services/T0A/B0B/{secret}", slack.port())
}

/// What somebody types for a Slack channel, and the inputs that the page fills in.
fn typed<'a>(page: &'a [(&'a str, String)], more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    page.iter().map(|(name, value)| (*name, value.as_str())).chain(more.iter().copied()).collect()
}

fn given(page: &Page) -> [(&'static str, String); 3] {
    ["kind", "version", "sealed"].map(|name| (name, page.hidden(name)))
}

/// Sends a form in which nearly everything is wrong; what the page says.
async fn everything_that_is_wrong(maya: &Person) -> String {
    // It is said at once, each at its field, and what was typed is kept.
    let bad = [
        ("id", "Not An Id"),
        ("min_severity", "HIGH"),
        ("events", "DENY"),
        ("rate_limit", "fast"),
        ("tools", "slack\r\ngit*"),
    ];
    let wrong = maya.post("/add-channel/slack", &bad).await;
    assert_eq!(wrong.status, 422, "{}", wrong.body);
    assert!(wrong.body.contains("Nothing was saved: there are 3 problems"), "{}", wrong.body);
    assert!(wrong.fault("id").contains("1 to 64 characters") && wrong.fault("rate_limit").contains("is not a rate"));
    assert!(wrong.fault("webhook_url").contains("Nothing says where to post"), "{}", wrong.body);
    for kept in
        ["value=\"Not An Id\"", "<option value=\"HIGH\" selected>", "\nslack\ngit*</textarea>", "<details open>"]
    {
        assert!(wrong.body.contains(kept), "{kept} in {}", wrong.body);
    }
    // It is said once, in the words of the form and not in those of the file.
    let bad = [("id", "soc"), ("events", "DENY"), ("retry.first", "10m"), ("retry.longest", "1s"), ("action", "test")];
    let untried = maya.post("/add-channel/telegram", &bad).await;
    assert!(untried.body.contains("Nothing was sent: there are 3 problems"), "{}", untried.body);
    assert!(untried.body.contains("<a href=\"#chat_id\">Chat ID is missing</a>"), "{}", untried.body);
    assert!(untried.fault("retry-first").contains("Lower “First wait” or raise “Longest wait”."), "{}", untried.body);
    assert!(!untried.body.contains('`'), "{}", untried.body);
    assert!(
        wrong.body.contains("<a href=\"#webhook_url\">Webhook URL: Nothing says where to post</a>"),
        "the summary leads to it: {}",
        wrong.body
    );
    wrong.body
}

/// Deletes the channel, with a count first.
async fn delete(maya: &Person, worker: &WorkerProcess) {
    let ask = maya.get("/channels/soc/delete").await;
    assert!(ask.body.contains("Nothing waits for it."), "{}", ask.body);
    let version = ask.hidden("version");
    let unsure = maya.done("/channels/soc/delete", &[]).await;
    assert!(unsure.body.contains("Nothing was deleted"), "{}", unsure.body);
    let gone = maya.done("/channels/soc/delete", &[("version", &version)]).await;
    assert!(gone.body.contains("Channel soc is deleted."), "{}", gone.body);
    assert_eq!(worker.api("GET", "/api/channels/soc", "token-of-admin", "").await.0, 404);
    let late = maya.done("/channels/soc/delete", &[("version", &version)]).await;
    assert!(late.body.contains("Channel soc is gone already."), "{}", late.body);
}

/// Waits until the audit has what was done, and what was refused.
async fn until_audited(worker: &WorkerProcess) {
    let expected = [
        ("put_channel", "refused: faulty_channel (signing_secret)"),
        ("put_channel", "refused: changed"),
        ("put_channel", "created"),
        ("test_unsaved_channel", "delivered"),
        ("test_unsaved_channel", "broken"),
        ("delete_channel", "refused: unknown_channel"),
        ("delete_channel", "deleted"),
    ];
    for (what, outcome) in expected {
        let (what, outcome) = (format!("\"what\":\"{what}\""), format!("\"outcome\":\"{outcome}\""));
        eventually("it is in the audit", PATIENCE, async || {
            worker.logs().lines().any(|line| line.contains(&what) && line.contains(&outcome)).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_is_tried_made_edited_and_deleted_by_forms_and_no_page_or_log_shows_a_secret() {
    let slack = StandIn::start(Platform::Slack, Script::accept()).await.unwrap();
    let worker = worker().await;
    let maya = Person::sign_in(&worker, "admin").await;
    let mut seen = String::new();

    let kinds = maya.get("/add-channel").await;
    let slacks = maya.get("/add-channel/slack").await.body;
    assert!(slacks.contains("set its Request URL to https://alerts.example.com/v1/slack/interactions."), "{slacks}");
    for kind in ["slack", "discord", "teams", "telegram", "siem"] {
        assert!(kinds.body.contains(&format!("href=\"/add-channel/{kind}\"")), "{kind} in {}", kinds.body);
        let form = maya.get(&format!("/add-channel/{kind}")).await;
        assert!(form.status == 200 && form.body.contains("name=\"min_severity\""), "{kind}: {}", form.body);
    }

    seen.push_str(&everything_that_is_wrong(&maya).await);

    // Tried before it is saved, twice: what was typed once is not typed again.
    let url = hook(&slack, HOOK);
    let fields = [
        ("id", "soc"),
        ("webhook_url", &*url),
        ("signing_secret", SIGNING),
        ("events", "DENY"),
        ("events", "INCIDENT"),
        ("action", "test"),
    ];
    let tried = maya.post("/add-channel/slack", &fields).await;
    assert!(tried.status == 200 && tried.body.contains("The endpoint has the test"), "{}", tried.body);
    let given_back = given(&tried);
    let again = [("id", "soc"), ("webhook_url", ""), ("signing_secret", "[typed 1]"), ("events", "DENY")];
    let press =
        |action: &'static str| typed(&given_back, &again).into_iter().chain([("action", action)]).collect::<Vec<_>>();
    let retried = maya.post("/add-channel/slack", &press("test")).await;
    assert!(retried.body.contains("The endpoint has the test"), "{}", retried.body);
    slack.set_script(Script::always(Step::Reply { reply: Reply::new(404, "no_service"), taken: false }));
    let refused = maya.post("/add-channel/slack", &press("test")).await;
    assert!(refused.body.contains("has not taken the test") && refused.body.contains("no_service"), "{}", refused.body);
    slack.set_script(Script::accept());
    assert_eq!(slack.counters().taken, 2);
    assert_eq!(worker.api("GET", "/api/channels", "token-of-admin", "").await.1, json!([]));
    let made = maya.done("/add-channel/slack", &press("save")).await;
    assert!(made.body.contains("Channel soc is made."), "{}", made.body);
    for page in [tried, retried, refused, made] {
        seen.push_str(&page.body);
    }
    let (_, told) = worker.api("GET", "/api/channels/soc", "token-of-admin", "").await;
    assert_eq!(
        (&told["events"], &told["config"]["signing_secret"]),
        (&json!(["DENY"]), &json!(["[secret]"])),
        "{told}"
    );
    // The name is taken now.
    let taken = maya.post("/add-channel/slack", &press("save")).await;
    assert!(taken.status == 412 && taken.fault("id").contains("is taken"), "{}", taken.body);

    // A URL may not change while the secrets beside it are only kept.
    let form = maya.get("/channels/soc/edit").await;
    let given_edit = given(&form);
    let elsewhere = hook(&slack, OTHER_HOOK);
    let moved = typed(&given_edit, &[("webhook_url", &elsewhere), ("signing_secret", "[secret]"), ("events", "DENY")]);
    let moved = maya.post("/channels/soc/edit", &moved).await;
    assert!(moved.status == 422 && moved.fault("signing_secret").contains("another URL"), "{}", moved.body);
    seen.push_str(&moved.body);

    for path in ["/", "/channels", "/channels/soc", "/channels/soc/edit", "/channels/soc/delete", "/add-channel/slack"]
    {
        let page = maya.get(path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.body);
        seen.push_str(&page.body);
    }
    for role in ["auditor", "analyst"] {
        let other = Person::sign_in(&worker, role).await;
        for path in ["/", "/channels", "/channels/soc", "/channels/soc/edit"] {
            seen.push_str(&other.get(path).await.body);
        }
    }
    assert_no_secret("a page", &seen);
    assert!(seen.contains("/...Hd6s"), "the mask is shown: {seen}");

    delete(&maya, &worker).await;
    until_audited(&worker).await;
    assert_no_secret("the log", &worker.logs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_who_edit_one_channel_the_second_is_told_and_loses_nothing() {
    let slack = StandIn::start(Platform::Slack, Script::accept()).await.unwrap();
    let worker = worker().await;
    let (maya, otto) = (Person::sign_in(&worker, "admin").await, Person::sign_in(&worker, "admin").await);
    let url = hook(&slack, HOOK);
    let fields = [("id", "soc"), ("webhook_url", &*url), ("events", "DENY"), ("digest.enabled", "on")];
    maya.done("/add-channel/slack", &fields).await;
    let (mayas, ottos) = (maya.get("/channels/soc/edit").await, otto.get("/channels/soc/edit").await);
    assert!(mayas.body.contains("<details>"), "nothing of what is rarely needed is set: {}", mayas.body);

    let saved =
        maya.done("/channels/soc/edit", &typed(&given(&mayas), &[("min_severity", "HIGH"), ("events", "DENY")])).await;
    // The box for digests was not ticked, which is otherwise than by default.
    assert!(maya.get("/channels/soc/edit").await.body.contains("<details open>"));
    assert!(saved.body.contains("Channel soc is saved."), "{}", saved.body);
    let typing = [("min_severity", "LOW"), ("events", "DENY"), ("tools", "github.*")];
    let told = otto.post("/channels/soc/edit", &typed(&given(&ottos), &typing)).await;
    assert_eq!(told.status, 412, "{}", told.body);
    assert!(
        told.body.contains("Nothing was saved: the-admin changed this channel while you edited it."),
        "{}",
        told.body
    );
    assert!(
        told.body.contains("\ngithub.*</textarea>") && told.body.contains("Meanwhile: <code>HIGH</code>"),
        "{}",
        told.body
    );
    let second = otto.done("/channels/soc/edit", &typed(&given(&told), &typing)).await;
    assert!(second.body.contains("Channel soc is saved."), "{}", second.body);
    let (_, channel) = worker.api("GET", "/api/channels/soc", "token-of-admin", "").await;
    assert_eq!((&channel["min_severity"], &channel["tools"][0]), (&"LOW".into(), &"github.*".into()), "{channel}");
    assert_eq!(channel["config"]["webhook_url"], format!("http://127.0.0.1:{}/...Hd6s", slack.port()));

    // And where the first one deletes it: what was typed can become a new one, but for the secret that nobody typed.
    let (mayas, ottos) = (maya.get("/channels/soc/delete").await, otto.get("/channels/soc/edit").await);
    maya.done("/channels/soc/delete", &[("version", &mayas.hidden("version"))]).await;
    let told = otto.post("/channels/soc/edit", &typed(&given(&ottos), &typing)).await;
    assert!(told.status == 412 && told.body.contains("somebody deleted this channel"), "{}", told.body);
    let told = otto.post("/channels/soc/edit", &typed(&given(&told), &typing)).await;
    assert!(told.status == 422 && told.fault("webhook_url").contains("where to post"), "{}", told.body);
    let again = [&typing[..], &[("webhook_url", &*url)]].concat();
    let made = otto.done("/channels/soc/edit", &typed(&given(&told), &again)).await;
    assert!(made.body.contains("Channel soc is made."), "{}", made.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_typed_for_a_channel_that_is_of_another_kind_by_now_replaces_it_only_when_that_is_wanted() {
    let slack = StandIn::start(Platform::Slack, Script::accept()).await.unwrap();
    let worker = worker().await;
    let maya = Person::sign_in(&worker, "admin").await;
    let url = hook(&slack, HOOK);
    let siem = json!({"kind": "siem", "url": url}).to_string();
    assert_eq!(worker.api("PUT", "/api/channels/soc", "token-of-admin", &siem).await.0, 201);
    let form = maya.get("/channels/soc/edit").await;
    let discord = json!({"kind": "discord", "webhook_url": hook(&slack, OTHER_HOOK)}).to_string();
    assert_eq!(worker.api("PUT", "/api/channels/soc", "token-of-admin", &discord).await.0, 200);
    let config = async || worker.api("GET", "/api/channels/soc", "token-of-admin", "").await.1["config"].clone();
    let before = config().await;

    let typing = [("url", &*url), ("agents", "agt_7"), ("events", "DENY")];
    let mut page = form;
    for action in ["test", "save"] {
        let form = given(&page);
        let fields = [&typed(&form, &typing)[..], &[("action", action)]].concat();
        // Who goes on from the form of before is told again, whatever is pressed.
        let told = maya.post("/channels/soc/edit", &fields).await;
        assert_eq!(told.status, 412, "{}", told.body);
        for says in
            ["it is a channel for Discord now", "\nagt_7</textarea>", "Replace the channel for Discord", "id=\"url\""]
        {
            assert!(told.body.contains(says), "{says} in {}", told.body);
        }
        assert_no_secret("the page", &told.body);
        assert_eq!(config().await, before, "nothing was saved by {action}");
        if action == "save" {
            page = told;
        }
    }
    let replaced = [("url", ""), ("agents", "agt_7"), ("events", "DENY"), ("action", "save")];
    let replaced = maya.done("/channels/soc/edit", &typed(&given(&page), &replaced)).await;
    assert!(replaced.body.contains("Channel soc is saved."), "{}", replaced.body);
    let masked = format!("http://127.0.0.1:{}/...Hd6s", slack.port());
    assert_eq!(config().await, json!({"kind": "siem", "url": masked, "agents": ["agt_7"], "events": ["DENY"]}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_says_why_to_everybody_until_somebody_resumes_it() {
    let slack = StandIn::start(Platform::Slack, Script::accept()).await.unwrap();
    let url = hook(&slack, HOOK);
    let channel = format!("[[channel]]\nid = \"filed\"\nkind = \"slack\"\nwebhook_url = \"{url}\"\n");
    let people = ["auditor", "analyst", "admin"].map(token_of).concat();
    let mut worker = WorkerProcess::new(&format!("{people}{channel}"));
    worker.start_ready().await;
    let (maya, looker) = (Person::sign_in(&worker, "analyst").await, Person::sign_in(&worker, "auditor").await);
    let why = "the channel is being moved <b>today</b>";
    let paused = maya.done("/channels/filed/pause", &[("back", "channel"), ("why", why)]).await;
    assert!(paused.body.contains("Channel filed is paused"), "{}", paused.body);
    for path in ["/channels/filed", "/channels", "/"] {
        let page = looker.get(path).await.body;
        assert!(page.contains("the channel is being moved &#60;b&#62;today&#60;/b&#62;"), "{path}: {page}");
        assert!(page.contains("the-analyst"), "{path}: {page}");
    }
    assert!(looker.get("/").await.body.contains("filed is paused by the-analyst: nobody is told there since"));
    let refused = looker.post("/channels/filed/resume", &[]).await;
    assert_eq!(refused.status, 403, "{}", refused.body);
    let resumed = maya.done("/channels/filed/resume", &[("back", "channel")]).await;
    assert!(
        resumed.body.contains("Channel filed is resumed") && !resumed.body.contains("being moved"),
        "{}",
        resumed.body
    );
    assert!(looker.get("/").await.body.contains("Everyone is being told."));
    // It is of the file, so it is not changed here; an admin is told so.
    let admin = Person::sign_in(&worker, "admin").await;
    let edit = admin.get("/channels/filed/edit").await;
    assert!(edit.status == 409 && edit.body.contains("read-only here"), "{}", edit.body);
    assert!(!admin.get("/channels/filed").await.body.contains("/channels/filed/edit"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_the_file_hides_is_shown_and_can_be_deleted() {
    let slack = StandIn::start(Platform::Slack, Script::accept()).await.unwrap();
    let worker = worker().await;
    let maya = Person::sign_in(&worker, "admin").await;
    let (mine, files) = (hook(&slack, HOOK), hook(&slack, OTHER_HOOK));
    maya.done("/add-channel/slack", &[("id", "soc"), ("webhook_url", &mine), ("events", "DENY")]).await;
    let channel = format!("[[channel]]\nid = \"soc\"\nkind = \"slack\"\nwebhook_url = \"{files}\"\n");
    worker.reconfigure(&format!("{}{channel}", ["auditor", "analyst", "admin"].map(token_of).concat()));
    worker.hang_up();
    let page = eventually("the file's channel is run", PATIENCE, async || {
        let page = maya.get("/channels/soc").await.body;
        page.contains("A channel with the same id was made over the API").then_some(page)
    })
    .await;
    assert!(!page.contains("/channels/soc/edit"), "{page}");
    let ask = maya.get("/channels/soc/delete").await;
    assert!(ask.body.contains("which the file hides"), "{}", ask.body);
    let gone = maya.done("/channels/soc/delete", &[("version", &ask.hidden("version"))]).await;
    assert!(gone.body.contains("that the file hid is deleted"), "{}", gone.body);
    let page = eventually("it is gone", PATIENCE, async || {
        let page = maya.get("/channels/soc").await.body;
        (!page.contains("made over the API")).then_some(page)
    })
    .await;
    assert!(page.contains("of the file"), "the file's stays: {page}");
    assert_eq!(maya.get("/channels/soc/delete").await.status, 409);
}
