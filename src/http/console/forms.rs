//! Channels added and edited in a browser.
//!
//! A form is shown with what stands in it, and is sent whole. It becomes a channel as `PUT` takes it and goes the same way, so it is
//! held against the same rules; what is wrong stands at its field, and nothing that was typed is lost. Secrets are the exception: no
//! page shows one (`forms/sealed.rs` says what becomes of them between two presses).
//!
//! The form carries the version of the channel that it was made upon. Where somebody has changed the channel meanwhile, nothing is
//! saved: the form is shown again with what was typed, and says where the channel has become something else. A form is read as the
//! kind that it was made for: in one of another kind, a box that is not there would be a box that nobody ticked.

mod notices;
mod sealed;
mod showing;

pub(super) use showing::sentence;

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde_json::{Map, Value};
use uuid::Uuid;

use self::notices::{no_key, no_such_kind, of_file, too_large, unheard};
use super::{Id, Visit, channels, field, fields_within, id_of, lead};
use crate::{
    console::{self, Aim, Choice, Fault, FormPage, KindsPage, Section, Text, Tone, Tried},
    http::{
        channel_changes::{self, CHANNEL_BYTES_MAX},
        channels::{as_json, find},
        guard::{Caller, Gate},
    },
    managed::{Complaint, Condition, Filled, KINDS, Kind, Put, Refusal, Report, Subject, kind_of},
    model::ChannelId,
};

/// The largest form, in bytes: a channel of 64 KiB, percent-encoded, and its secrets sealed.
const FORM_BYTES_MAX: usize = 320 * 1024;

/// What stands for an id where none can be read yet, so that the other faults are told, too.
const SOME_ID: &str = "channel";

pub(super) async fn kinds(
    State(gate): State<Gate>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    let visit = Visit::new(&gate, &caller, &headers);
    if gate.inside.key.is_none() {
        return no_key(visit);
    }
    let choice = |kind: &&Kind| Choice { name: kind.name, title: kind.form.title, sentence: kind.form.sentence };
    let kinds = KINDS.iter().map(choice).collect();
    visit.page("Add a channel", Some(Section::Channels), |frame| console::html(&KindsPage { frame, kinds }))
}

pub(super) async fn blank(
    State(gate): State<Gate>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    kind: Id,
) -> Response {
    let visit = Visit::new(&gate, &caller, &headers);
    let Some(kind) = kind_of(&id_of(kind)) else { return no_such_kind(visit) };
    if gate.inside.key.is_none() {
        return no_key(visit);
    }
    Sheet::of(&gate, &caller, kind, None).page(visit, StatusCode::OK)
}

pub(super) async fn make(
    State(gate): State<Gate>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    kind: Id,
    body: Body,
) -> Response {
    let visit = Visit::new(&gate, &caller, &headers);
    let Some(kind) = kind_of(&id_of(kind)) else { return no_such_kind(visit) };
    let Some(pairs) = fields_within(body, FORM_BYTES_MAX).await else { return too_large(visit) };
    Sheet::of(&gate, &caller, kind, None).press(visit, &pairs).await
}

pub(super) async fn edit(
    State(gate): State<Gate>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    id: Id,
) -> Response {
    let (id, visit) = (id_of(id), Visit::new(&gate, &caller, &headers));
    match Known::find(&gate, &id) {
        Known::Here(kind, known) => Sheet::of(&gate, &caller, kind, Some(known)).page(visit, StatusCode::OK),
        Known::OfFile => of_file(visit, &id),
        Known::Unheard => unheard(visit, &id),
        Known::Nowhere => channels::unknown(visit, &id),
    }
}

pub(super) async fn change(
    State(gate): State<Gate>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    id: Id,
    body: Body,
) -> Response {
    let (id, visit) = (id_of(id), Visit::new(&gate, &caller, &headers));
    let Some(pairs) = fields_within(body, FORM_BYTES_MAX).await else { return too_large(visit) };
    let typed = field(&pairs, "kind").and_then(kind_of);
    let sheet = match Known::find(&gate, &id) {
        Known::Here(kind, known) => {
            let Some(typed) = typed.filter(|_| field(&pairs, "version").is_some()) else {
                let mut sheet = Sheet::of(&gate, &caller, kind, Some(known));
                sheet.complaints.push(incomplete());
                return sheet.page(visit, StatusCode::UNPROCESSABLE_ENTITY);
            };
            Sheet::of(&gate, &caller, typed, Some(known))
        }
        Known::OfFile => return of_file(visit, &id),
        Known::Unheard => return unheard(visit, &id),
        // It was deleted while somebody edited it. What was typed is not lost: it becomes a new channel, if that is wanted.
        Known::Nowhere => match (typed, id.parse::<ChannelId>()) {
            (Some(kind), Ok(id)) => Sheet::of(&gate, &caller, kind, Some(Channel::gone(id))),
            _ => return channels::unknown(visit, &id),
        },
    };
    sheet.press(visit, &pairs).await
}

/// A channel that is edited.
struct Channel {
    id: ChannelId,
    /// `None` where it is gone.
    kind: Option<&'static Kind>,
    /// As it is shown, secrets masked; `None` where this worker cannot read it, or it is gone.
    config: Option<Map<String, Value>>,
    /// `None` where it is gone.
    version: Option<Uuid>,
    /// Who made it so.
    by: Option<String>,
}

impl Channel {
    fn gone(id: ChannelId) -> Self {
        Self { id, kind: None, config: None, version: None, by: None }
    }

    /// The kind that it is of by now, where that is another one.
    fn other_than(&self, kind: &Kind) -> Option<&'static Kind> {
        self.kind.filter(|own| own.name != kind.name)
    }
}

/// What is known of the channel in an address.
enum Known {
    Here(&'static Kind, Channel),
    OfFile,
    /// It is of a kind that this worker has never heard of.
    Unheard,
    Nowhere,
}

impl Known {
    fn find(gate: &Gate, id: &str) -> Self {
        let Ok(shown) = find(&gate.inside, id) else { return Self::Nowhere };
        let told = as_json(&shown, &gate.inside);
        if told["source"] == "file" {
            return Self::OfFile;
        }
        let Some(kind) = told["kind"].as_str().and_then(kind_of) else { return Self::Unheard };
        let by = told["changed_by"].as_str().map(str::to_owned);
        let config = told["config"].as_object().cloned();
        Self::Here(kind, Channel { id: shown.id, kind: Some(kind), config, version: shown.version, by })
    }
}

/// A form under somebody's hands.
struct Sheet<'a> {
    gate: &'a Gate,
    caller: &'a Caller,
    kind: &'static Kind,
    /// `None` for one that is to be made.
    channel: Option<Channel>,
    /// The id, as it was typed.
    id: String,
    filled: Filled,
    /// The version that the form was made upon.
    version: String,
    complaints: Vec<Complaint>,
    meanwhile: Option<String>,
    tried: Option<Tried>,
    /// Whether it was the button of the test that was pressed.
    testing: bool,
}

impl<'a> Sheet<'a> {
    /// The form as it is before anybody types.
    fn of(gate: &'a Gate, caller: &'a Caller, kind: &'static Kind, channel: Option<Channel>) -> Self {
        let version = channel.as_ref().map(version_of).unwrap_or_default();
        let (complaints, meanwhile, tried, id, testing) = Default::default();
        let filled = Filled::blank(kind);
        let mut sheet =
            Self { gate, caller, kind, channel, id, filled, version, complaints, meanwhile, tried, testing };
        if let Some(config) = sheet.present() {
            sheet.filled = Filled::of(kind, config);
        }
        sheet
    }

    /// What the channel is by now. Of another kind it is nothing that this form could be held against.
    fn present(&self) -> Option<&Map<String, Value>> {
        let channel = self.channel.as_ref().filter(|channel| channel.other_than(self.kind).is_none())?;
        channel.config.as_ref()
    }

    /// The kind of the channel, where it is another one than the form's by now.
    fn other_kind(&self) -> Option<&'static Kind> {
        self.channel.as_ref().and_then(|channel| channel.other_than(self.kind))
    }

    /// Where the form is, and is sent to.
    fn path(&self) -> String {
        match &self.channel {
            Some(channel) => format!("/channels/{}/edit", channel.id),
            None => format!("/add-channel/{}", self.kind.name),
        }
    }

    /// Does what a button asks for.
    async fn press(mut self, visit: Visit, pairs: &[(String, String)]) -> Response {
        let (key, now) = (self.gate.sessions.key(), self.gate.inside.clock.now());
        let sealed = field(pairs, "sealed").unwrap_or_default();
        let held = sealed::open(key, sealed, (&self.caller.name, &self.path()), now);
        self.filled = Filled::sent(self.kind, pairs, &held, self.present());
        field(pairs, "id").unwrap_or_default().trim().clone_into(&mut self.id);
        field(pairs, "version").unwrap_or_default().clone_into(&mut self.version);
        self.testing = field(pairs, "action") == Some("test");

        // Only a page that says that the channel is of another kind has such a form with the version that the channel has by now.
        if let Some(channel) = self.channel.as_ref().filter(|channel| channel.other_than(self.kind).is_some())
            && self.version != version_of(channel)
        {
            let id = channel.id.clone();
            self.catch_up(&id);
            return self.page(visit, StatusCode::PRECONDITION_FAILED);
        }
        let id = match &self.channel {
            Some(channel) => Ok(channel.id.clone()),
            None => self.id.parse::<ChannelId>().map_err(|_| bad_id(&self.id)),
        };
        self.complaints = self.filled.complaints().to_vec();
        self.complaints.extend(id.as_ref().err().cloned());
        self.complaints.extend(too_long(&self.filled.channel()));
        if let Ok(id) = &id
            && self.complaints.is_empty()
        {
            return if self.testing { self.test(visit, id).await } else { self.save(visit, id).await };
        }
        // Every fault at once, also where one of them is known already.
        let id = id.ok().or_else(|| SOME_ID.parse().ok());
        if let Some(id) = id
            && let Err(Refusal::Faulty(faults)) = self.gate.inside.desk.check(&id, &self.filled.channel()).await
        {
            self.complaints.extend(faults);
        }
        self.page(visit, StatusCode::UNPROCESSABLE_ENTITY)
    }

    async fn test(mut self, visit: Visit, id: &ChannelId) -> Response {
        let subject = Subject::Sent(self.filled.channel());
        match channel_changes::try_out(&self.gate.inside, self.caller, id, subject, None).await {
            Ok(report) => {
                self.tried = Some(tried(&report));
                self.page(visit, StatusCode::OK)
            }
            Err(refusal) => self.refused(visit, refusal),
        }
    }

    async fn save(self, visit: Visit, id: &ChannelId) -> Response {
        let condition = match self.version.parse() {
            Ok(version) => Condition::Version(version),
            Err(_) => Condition::Absent,
        };
        let (inside, channel) = (&self.gate.inside, self.filled.channel());
        match channel_changes::put_channel(inside, self.caller, id.as_str(), &channel, condition).await {
            Ok(Put { created, warnings }) => {
                let sample = if self.kind.chat { "a card" } else { "an event" };
                let done = if created { &*format!("is made. Test it to see {sample} arrive") } else { "is saved" };
                let label = |key: &str| self.filled.field_of(key).map_or("", |field| field.label);
                let warned = |one: &Complaint| {
                    let Fault { problem, hint } = showing::fault(&self.filled, label(&one.key), one);
                    [String::from(" But: "), format!("{problem}. {hint}")]
                };
                let warned: String = warnings.iter().flat_map(warned).collect();
                let tone = if warnings.is_empty() { Tone::Good } else { Tone::Partly };
                lead(self.gate, &channels::path(id.as_str()), tone, &format!("Channel {id} {done}.{warned}"))
            }
            Err(refusal) => self.refused(visit, refusal),
        }
    }

    /// The form again, with why nothing was done.
    fn refused(mut self, visit: Visit, refusal: Refusal) -> Response {
        let (status, _) = channel_changes::status_and_code(&refusal);
        let at_id = |problem: &str| Complaint {
            key: String::from("id"),
            problem: problem.to_owned(),
            hint: String::from("give this one another name, or go to that one and edit it"),
        };
        match (refusal, &self.channel) {
            (Refusal::Faulty(faults), _) => self.complaints = faults,
            (Refusal::NoKey, _) => return no_key(visit),
            (Refusal::Changed(_), None) => self.complaints.push(at_id("is taken by another channel")),
            (Refusal::Provisioned(_), None) => {
                self.complaints.push(at_id("is taken by a channel of the worker's file"));
            }
            (Refusal::Changed(id), Some(_)) => self.catch_up(&id),
            (other, _) => self.complaints.push(Complaint {
                key: String::new(),
                problem: other.to_string(),
                hint: other.hint().to_owned(),
            }),
        }
        self.page(visit, status)
    }

    /// Somebody changed the channel meanwhile: the next press is made upon what it is now.
    fn catch_up(&mut self, id: &ChannelId) {
        match Known::find(self.gate, id.as_str()) {
            Known::Here(kind, channel) => {
                let by = channel.by.as_deref().unwrap_or("somebody");
                let became = channel
                    .other_than(self.kind)
                    .map_or_else(String::new, |_| format!(", and it is a channel for {} now", kind.form.title));
                self.meanwhile = Some(format!("{by} changed this channel while you edited it{became}."));
                self.version = version_of(&channel);
                self.channel = Some(channel);
            }
            Known::OfFile | Known::Unheard | Known::Nowhere => {
                self.meanwhile = Some(String::from("somebody deleted this channel while you edited it."));
                self.version = String::new();
                self.channel = Some(Channel::gone(id.clone()));
            }
        }
    }

    fn page(self, visit: Visit, status: StatusCode) -> Response {
        let (path, now) = (self.path(), self.gate.inside.clock.now());
        let sealed = sealed::seal(self.gate.sessions.key(), &self.filled.held(), (&self.caller.name, &path), now);
        let replaces = self.other_kind().map(|kind| kind.form.title);
        let present = self.present().filter(|_| self.meanwhile.is_some());
        let meanwhile = present.map(|config| Filled::of(self.kind, config));
        let (of_id, others): (Vec<_>, Vec<_>) = self.complaints.into_iter().partition(|one| one.key == "id");
        let (fields, mut faults) = showing::fields(&self.filled, &others, meanwhile.as_ref());
        let more_set = self.filled.set(|field| field.more);
        let public_url = self.gate.inside.terms.borrow().public_url().to_owned();
        let step = |step: &&str| Text::long(&step.replace("{public_url}", &public_url));
        let is_more = |key: &str| self.filled.field_of(key).is_some_and(|field| field.more);
        let (more, first) = fields.into_iter().partition(|field| is_more(field.key));
        let unreadable = self.channel.as_ref().is_some_and(|one| one.config.is_none() && one.version.is_some());
        if unreadable {
            faults.push(Fault {
                problem: Text::short("This worker cannot read the channel"),
                hint: Text::short("What is entered here takes its place as a whole."),
            });
        }
        let of_id: Vec<Fault> = of_id.iter().map(|one| showing::fault(&self.filled, "Name", one)).collect();
        let (aim, leave, title) = if let Some(Channel { id, .. }) = &self.channel {
            (Aim::Change { id: Text::short(id.as_str()) }, channels::path(id.as_str()), format!("Edit {id}"))
        } else {
            let title = format!("Add a channel: {}", self.kind.form.title);
            (Aim::Make { id: self.id, faults: of_id }, String::from("/add-channel"), title)
        };
        let mut response = visit.page(&title, Some(Section::Channels), |frame| {
            console::html(&FormPage {
                frame,
                kind: self.kind.form.title,
                name: self.kind.name,
                steps: self.kind.form.steps.iter().map(step).collect(),
                aim,
                action: path,
                leave,
                version: self.version,
                sealed,
                first,
                more,
                more_set,
                faults,
                meanwhile: self.meanwhile.as_deref().map(Text::long),
                testing: self.testing,
                replaces,
                tried: self.tried,
            })
        });
        *response.status_mut() = status;
        response
    }
}

fn version_of(channel: &Channel) -> String {
    channel.version.map(|version| version.to_string()).unwrap_or_default()
}

fn tried(report: &Report) -> Tried {
    Tried {
        delivered: report.delivered,
        status: report.status,
        reply: Text::long(&report.reply),
        meaning: sentence(report.meaning),
        endpoint: Text::short(&report.endpoint),
        took: format!("{} ms", report.took.as_millis()),
    }
}

fn bad_id(typed: &str) -> Complaint {
    let problem = if typed.is_empty() { "is missing" } else { "must be 1 to 64 characters of a-z, 0-9 and -" };
    let hint = "name the channel, as in soc-slack";
    Complaint { key: String::from("id"), problem: problem.to_owned(), hint: hint.to_owned() }
}

/// What `PUT` would not take, because of its size.
fn too_long(channel: &Map<String, Value>) -> Option<Complaint> {
    let bytes = serde_json::to_vec(channel).map_or(usize::MAX, |json| json.len());
    (bytes > CHANNEL_BYTES_MAX).then(|| Complaint {
        key: String::new(),
        problem: format!("the channel is larger than {} KiB", CHANNEL_BYTES_MAX / 1024),
        hint: String::from("shorten what is long; a pattern with * stands for many names"),
    })
}

fn incomplete() -> Complaint {
    Complaint {
        key: String::new(),
        problem: String::from("the form did not arrive as it was made: it does not say which channel it was made upon"),
        hint: String::from("below is the channel as it is: change it again, and save it"),
    }
}
