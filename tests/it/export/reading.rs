//! Exports as others read them: the ids in them, one after the other, by readers that share no code with what writes them.

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

/// The ids in an export of this format.
pub(super) fn ids(format: &str, document: &str) -> Vec<String> {
    let id = |value: &Value| value.as_str().expect("an id").to_owned();
    let array = || serde_json::from_str::<Vec<Value>>(document).expect("one JSON array");
    match format {
        "json" => array().iter().map(|one| id(&one["id"])).collect(),
        "datadog" => array().iter().map(|one| id(&one["interven"]["id"])).collect(),
        "ndjson" => document.lines().map(|line| id(&serde_json::from_str::<Value>(line).unwrap()["id"])).collect(),
        "splunk" => {
            let objects = serde_json::Deserializer::from_str(document).into_iter::<Value>();
            objects.map(|object| id(&object.expect("one object after the other")["event"]["id"])).collect()
        }
        "csv" => {
            let rows = rows(document);
            assert_eq!(rows[0][0], "id");
            assert!(rows.iter().all(|row| row.len() == rows[0].len()), "every row has every column");
            assert!(rows.iter().flatten().all(|cell| !cell.starts_with(['=', '+', '@'])), "a spreadsheet would run it");
            rows[1..].iter().map(|row| row[0].clone()).collect()
        }
        other => panic!("{other}"),
    }
}

/// The cells of a document by the grammar of RFC 4180.
fn rows(document: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut chars = document.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quoted) {
            ('"', true) if chars.peek() == Some(&'"') => cell.extend(chars.next()),
            ('"', _) => quoted = !quoted,
            (',', false) => row.push(std::mem::take(&mut cell)),
            ('\r', false) => {
                assert_eq!(chars.next(), Some('\n'), "a row ends with CRLF");
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            (c, _) => cell.push(c),
        }
    }
    assert!(row.is_empty() && cell.is_empty() && !quoted, "the last row ends, too");
    rows
}

/// Reads an export from standard input and prints the ids.
const PYTHON: &str = r#"
import csv, io, json, sys
text = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", newline="").read()
def splunk():
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        one, at = decoder.raw_decode(text, at)
        yield one["event"]["id"]
        while at < len(text) and text[at].isspace():
            at += 1
found = {
    "json": lambda: [one["id"] for one in json.loads(text)],
    "datadog": lambda: [one["interven"]["id"] for one in json.loads(text)],
    "ndjson": lambda: [json.loads(line)["id"] for line in text.split("\n") if line],
    "splunk": splunk,
    "csv": lambda: [row["id"] for row in csv.DictReader(io.StringIO(text, newline=""), strict=True)],
}[sys.argv[1]]()
print("\n".join(found))
"#;

/// The same as python reads it, where there is a python.
pub(super) async fn by_python(format: &str, document: &str) -> Option<Vec<String>> {
    let works = tokio::process::Command::new("python3").args(["-c", ""]).status().await;
    works.ok().filter(std::process::ExitStatus::success)?;
    let mut command = tokio::process::Command::new("python3");
    command.args(["-c", PYTHON, format]).kill_on_drop(true);
    let piped = std::process::Stdio::piped;
    let mut child = command.stdin(piped()).stdout(piped()).stderr(piped()).spawn().ok()?;
    let (mut stdin, document) = (child.stdin.take().unwrap(), document.to_owned());
    let ((), output) = tokio::join!(
        async move {
            stdin.write_all(document.as_bytes()).await.unwrap();
            drop(stdin);
        },
        child.wait_with_output()
    );
    let output = output.unwrap();
    assert!(output.status.success(), "{format}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
}
