//! `GET /api/openapi.json`: the description of the API, complete and true.
//!
//! What an operation takes and answers is written by hand, a file for each subject, beside the handlers. What the guard and the
//! limits add to every operation is not: it is put in here, from the same table that they go by. So who may call what cannot be
//! described otherwise than it is done. A test holds the files against the table, both ways, and another one sends what they
//! describe, and much that is close to it, to a real worker.

use std::sync::LazyLock;

use axum::{
    Router,
    body::Bytes,
    http::{HeaderValue, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use serde_json::{Map, Value, json};

use super::catalogue::{For, ROUTES, Route, Who};

/// The frame, and the subjects that go into it.
const FRAME: &str = include_str!("openapi/base.json");
const SUBJECTS: [&str; 5] = [
    include_str!("openapi/session.json"),
    include_str!("openapi/channels.json"),
    include_str!("openapi/dead_letters.json"),
    include_str!("openapi/decisions.json"),
    include_str!("openapi/approvals.json"),
];

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| document().to_string().into());

pub(super) fn routes() -> Router {
    Router::new().route("/api/openapi.json", get(show))
}

async fn show() -> impl IntoResponse {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], Bytes::clone(&DOCUMENT))
}

/// The whole document.
fn document() -> Value {
    let mut whole = read(FRAME);
    whole["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    for subject in SUBJECTS.map(read) {
        for (part, things) in subject.as_object().into_iter().flatten() {
            let place = if part == "paths" { &mut whole["paths"] } else { &mut whole["components"][part] };
            if place.is_null() {
                *place = json!({});
            }
            if let (Some(place), Some(things)) = (place.as_object_mut(), things.as_object()) {
                place.extend(things.clone());
            }
        }
    }
    if let Some(responses) = whole["components"]["responses"].as_object_mut() {
        responses.values_mut().for_each(complete_error);
    }
    for route in described() {
        if let Some(operation) = operation(&mut whole["paths"], route) {
            complete(operation, route);
        }
    }
    whole
}

/// The routes that are for programs.
fn described() -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().filter(|route| route.whose == For::Programs)
}

#[expect(clippy::expect_used, reason = "a test reads every file")]
fn read(text: &str) -> Value {
    serde_json::from_str(text).expect("the files of the description are JSON")
}

fn operation<'a>(paths: &'a mut Value, route: &Route) -> Option<&'a mut Map<String, Value>> {
    let method = route.method.as_str().to_ascii_lowercase();
    paths.get_mut(route.path)?.get_mut(method)?.as_object_mut()
}

/// The files write `"$ref": "error"` for an answer whose body is an error.
fn complete_error(response: &mut Value) {
    let Some(fields) = response.as_object_mut() else { return };
    if fields.get("$ref").is_some_and(|to| to == "error") {
        fields.remove("$ref");
        fields.insert(
            String::from("content"),
            json!({"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}),
        );
    }
}

/// What the guard and the limits add: who may, and how they refuse.
fn complete(operation: &mut Map<String, Value>, route: &Route) {
    let mut refusals =
        vec![("408", "Timeout"), ("413", "TooLarge"), ("414", "TargetTooLong"), ("431", "HeadersTooLarge")];
    let security = match route.who {
        Who::Everybody => {
            if !route.method.is_safe() {
                refusals.push(("403", "CrossOrigin"));
            }
            operation.insert(String::from("x-roles"), json!([]));
            json!([])
        }
        Who::Roles(roles) => {
            refusals.extend([("401", "Unauthorised"), ("403", "Forbidden")]);
            let roles: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
            let before = operation
                .get("description")
                .and_then(Value::as_str)
                .map_or(String::new(), |text| format!("{text}\n\n"));
            operation.insert(String::from("description"), format!("{before}Roles: {}.", roles.join(", ")).into());
            operation.insert(String::from("x-roles"), roles.into());
            json!([{"bearer": []}, {"cookie": []}])
        }
    };
    operation.insert(String::from("security"), security);
    let id = format!("{} {}", route.method.as_str().to_ascii_lowercase(), route.path);
    let words = id.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    operation.insert(String::from("operationId"), words.collect::<Vec<_>>().join("_").into());
    if let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) {
        for (status, name) in refusals {
            let refusal = json!({"$ref": format!("#/components/responses/{name}")});
            responses.entry(status).or_insert(refusal);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

    #[test]
    fn every_route_for_programs_is_described_and_nothing_else_is() {
        let table: BTreeSet<(String, String)> =
            described().map(|route| (route.path.to_owned(), route.method.as_str().to_ascii_lowercase())).collect();
        let document = document();
        let mut described = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys().filter(|key| METHODS.contains(&key.as_str())) {
                described.insert((path.clone(), method.clone()));
            }
        }
        assert_eq!(described, table);
    }

    #[test]
    fn every_operation_says_who_may_what_it_answers_and_which_parameters_its_path_has() {
        let document = document();
        for route in described() {
            let item = &document["paths"][route.path];
            let operation = &item[route.method.as_str().to_ascii_lowercase()];
            for key in ["summary", "tags", "operationId", "security", "responses", "x-roles"] {
                assert!(operation.get(key).is_some(), "{} {} has no {key}", route.method, route.path);
            }
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|status| status.starts_with('2')), "{}", route.path);
            let guarded = matches!(route.who, Who::Roles(_));
            assert!(!guarded || (responses.contains_key("401") && responses.contains_key("403")), "{}", route.path);
            let parameters = [&item["parameters"], &operation["parameters"]];
            let parameters: Vec<&Value> = parameters.iter().filter_map(|list| list.as_array()).flatten().collect();
            let resolved = parameters.iter().map(|one| resolve(&document, one));
            let in_path = resolved.filter(|one| one["in"] == "path").count();
            assert_eq!(in_path, route.path.matches('{').count(), "{}", route.path);
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_everything_is_referred_to() {
        let document = document();
        let (mut references, mut dangling) = (BTreeSet::new(), Vec::new());
        collect(&document, &mut references);
        for reference in &references {
            if reference.strip_prefix('#').and_then(|path| document.pointer(path)).is_none() {
                dangling.push(reference);
            }
        }
        assert!(dangling.is_empty(), "{dangling:?}");
        for (part, things) in document["components"].as_object().unwrap() {
            for name in things.as_object().unwrap().keys() {
                let reference = format!("#/components/{part}/{name}");
                assert!(part == "securitySchemes" || references.contains(&reference), "nobody refers to {reference}");
            }
        }
    }

    fn resolve<'a>(document: &'a Value, thing: &'a Value) -> &'a Value {
        let reference = thing.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix('#'));
        reference.map_or(thing, |path| document.pointer(path).unwrap())
    }

    fn collect(value: &Value, references: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                references.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| collect(value, references));
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, references)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}
