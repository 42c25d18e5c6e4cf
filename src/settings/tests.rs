use std::time::Duration;

use super::*;

/// The faults of a reading as `line:column path: problem / hint`.
fn shown(faults: &[Fault]) -> Vec<String> {
    faults.iter().map(|f| format!("{}:{} {}: {} / {}", f.line, f.column, f.path, f.problem, f.hint)).collect()
}

fn env(name: &str) -> Option<String> {
    match name {
        "TOKEN" => Some("tok-secret-123".into()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

const DAY: Duration = Duration::from_hours(24);

#[test]
fn every_type_is_read() {
    let text = r#"
        text = "a${TOKEN}b"
        secret = "${TOKEN}"
        one = "x1"
        several = ["x1", "${TOKEN}"]
        list = ["a", "b"]
        number = 0x10
        truth = false
        wait = "1h30m"
        never = "none"
        size = "1MiB"
        plain_size = 77
        choice = "gzip"
        url = "https://user:pw@h.example/p?q=1"
        local = "http://127.0.0.1:1/x"
        link = "http://intern/console/"
        headers = { A = "b", "X-Y" = "${TOKEN}" }
        shape = { a = [1, 2.5, true, "${TOKEN}", { b = 1979-05-27 }] }
        [inner]
        x = 1
        [[many]]
        x = 1
        [[many]]
        x = 2
    "#;
    let outside = Outside::new(&env, std::path::Path::new("."));
    let reading = read(text, &outside, |s| {
        assert_eq!(s.text("text").as_deref(), Some("atok-secret-123b"));
        assert_eq!(s.secret("secret").unwrap().expose(), "tok-secret-123");
        assert_eq!((s.secrets("one").len(), s.secrets("several").len(), s.secrets("no").len()), (1, 2, 0));
        assert_eq!(s.texts("list"), Some(vec!["a".into(), "b".into()]));
        assert_eq!(s.integer("number", 1..=16), Some(16));
        assert_eq!(s.boolean("truth"), Some(false));
        assert_eq!(s.duration("wait", Duration::ZERO..=DAY), Some(Duration::from_mins(90)));
        assert_eq!(s.duration_or_none("never", Duration::ZERO..=DAY), Some(None));
        assert_eq!(s.size("size", 0..=1 << 20), Some(1 << 20));
        assert_eq!(s.size("plain_size", 0..=100), Some(77));
        assert_eq!(s.choice("choice", &["none", "gzip"]), Some(1));
        assert_eq!(s.url("url").unwrap().as_str(), "https://user:pw@h.example/p?q=1");
        assert!(s.url("local").is_some());
        assert_eq!(s.link("link").as_deref(), Some("http://intern/console"));
        assert_eq!(s.secret_map("headers")["X-Y"].expose(), "tok-secret-123");
        let shape = serde_json::json!({"a": [1, 2.5, true, "tok-secret-123", {"b": "1979-05-27"}]});
        assert_eq!(s.json("shape"), Some(shape));
        assert_eq!(s.table("inner", |s| s.integer("x", 0..=9)), Some(Some(1)));
        assert_eq!(s.tables("many", |s| s.integer("x", 0..=9)), [Some(1), Some(2)]);
        assert!(s.has("url") && !s.has("absent") && s.text("absent").is_none());
    });
    assert_eq!(shown(&reading.faults), [""; 0]);
}

#[test]
fn every_fault_is_noted_with_its_place_and_a_hint() {
    let text = "\
a = 1
b = \"${MISSING}\"
c = \"${EMPTY}\"
d = \"${\"
number = 17
wait = \"10\"
size = \"1kb\"
choice = \"gzib\"
url = \"http://h.example/x\"
meta = \"https://169.254.169.254/x\"
mapped = \"https://[::ffff:169.254.169.254]/x\"
ftp = \"ftp://h/x\"
nmber = 1
[inner]
z = \"x\"
";
    let outside = Outside::new(&env, std::path::Path::new("."));
    let reading = read(text, &outside, |s| {
        for key in ["a", "b", "c", "d"] {
            assert_eq!(s.text(key), None, "{key}");
        }
        assert_eq!(s.integer("number", 1..=16), None);
        assert_eq!(s.duration("wait", Duration::ZERO..=DAY), None);
        assert_eq!(s.size("size", 0..=9), None);
        assert_eq!(s.choice("choice", &["none", "gzip"]), None);
        for key in ["url", "meta", "mapped", "ftp"] {
            assert_eq!(s.url(key), None, "{key}");
        }
        s.table("inner", |s| {
            assert_eq!(s.require_text("x", "name it"), None);
            assert!(s.integer("z", 0..=1).is_none());
        });
    });
    let expected = "\
1:5 a: must be a string, not a whole number / write a = \"...\"
2:5 b: the environment variable `MISSING` is not set / set `MISSING`, or give the value in a file with `b_file = \"path\"`
3:5 c: is empty / set the variable or fill the file it comes from
4:5 d: `${` is not followed by a variable's name and `}` / write ${NAME} with letters, digits and _, or $${ for a literal ${
5:10 number: must be from 1 to 16 / write a number in this range
6:8 wait: is not a duration / write it as 30s; units are ms, s, m, h, d, and 1h30m is one, too
7:8 size: is not a size / write it as 0B; units are B, KB, KiB, MB, MiB, GB, GiB
8:10 choice: `gzib` is not one of none, gzip / did you mean gzip?
9:7 url: plain http would show secrets and decisions to everyone on the way / write https://, or set `allow_http = true` in [egress]
10:8 meta: this address is forbidden by [egress] (cloud metadata and link-local always are) / point it at another host, or look at `deny` in [egress]
11:10 mapped: this address is forbidden by [egress] (cloud metadata and link-local always are) / point it at another host, or look at `deny` in [egress]
12:7 ftp: must be an http or https URL / write it as https://host/path; in a password, @ / # stand as %40 %2F %23
13:1 nmber: is not a key that is known here / did you mean `number`?
14:1 inner.x: is missing / name it
15:5 inner.z: must be a whole number, not a string / write one from 0 to 1, without quotes";
    assert_eq!(shown(&reading.faults).join("\n"), expected);
}

#[test]
fn a_value_may_stand_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("token"), "from-a-file\n").unwrap();
    std::fs::write(directory.path().join("empty"), "\n").unwrap();
    let text = "a_file = \"token\"\nb = \"x\"\nb_file = \"token\"\nc_file = \"absent\"\nd_file = \"empty\"\nn_file = \"token\"\n[h]\nA_file = \"token\"\n";
    let reading = read(text, &Outside::new(&env, directory.path()), |s| {
        assert!(s.has("a"));
        assert_eq!(s.require_secret("a", "").unwrap().expose(), "from-a-file");
        assert_eq!((s.text("b"), s.text("c"), s.text("d"), s.integer("n", 0..=1)), (None, None, None, None));
        assert_eq!(s.secret_map("h")["A"].expose(), "from-a-file");
    });
    let places: Vec<(usize, &str)> = reading.faults.iter().map(|f| (f.line, f.path.as_str())).collect();
    assert_eq!(places, [(3, "b_file"), (4, "c_file"), (5, "d"), (6, "n_file")], "{:?}", reading.faults);
}

#[test]
fn a_variable_that_is_not_set_comes_with_a_way_out_that_can_be_written_where_it_stands() {
    let text =
        "a = \"${NO}\"\nb_file = \"${NO}/b\"\nheaders = { Authorization = \"${NO}\", Key_file = \"${NO}/key\" }\n";
    let reading = read(text, &Outside::new(&env, std::path::Path::new(".")), |s| {
        assert!(s.text("a").is_none() && s.text("b").is_none() && s.secret_map("headers").is_empty());
    });
    let ways: Vec<_> = reading.faults.iter().filter_map(|fault| fault.hint.strip_prefix("set `NO`, or ")).collect();
    let in_file = "give the value in a file with";
    let expected = [
        format!("{in_file} `a_file = \"path\"`"),
        String::from("write the path itself"),
        format!("{in_file} `Authorization_file = \"path\"` inside `headers`"),
        String::from("write the path itself"),
    ];
    assert_eq!(ways, expected);
}

#[test]
fn what_is_not_toml_is_reported_at_its_place_without_its_values() {
    let reading = read("a = 1\nsecret = \"hush-hush\na = 2\n", &Outside::nothing(), |_| ());
    assert!(reading.value.is_none());
    assert_eq!(reading.faults[0].line, 2);
    assert!(!format!("{:?}", reading.faults).contains("hush"), "{:?}", reading.faults);
}

#[test]
fn no_fault_prints_a_secret() {
    let text = "\
unknown = \"plain-secret-1\"
secret = \"plain-secret-2\"
url = \"http://h.example/plain-secret-3\"
choice = \"${TOKEN}\"
wait = \"${TOKEN}\"
list = [\"${TOKEN}\"]
row = [{ secret = \"plain-secret-4\", choice = \"wrong\" }]
signing = 5
";
    let reading = read(text, &Outside::new(&env, std::path::Path::new("")), |s| {
        let secret = s.secret("secret").unwrap();
        s.fault("secret", format!("{} is no good", secret.expose()), "hint with plain-secret-2");
        s.url("url");
        s.choice("choice", &["x"]);
        s.duration("wait", Duration::ZERO..=DAY);
        s.choices("list", &["x"]);
        s.tables("row", |s| (s.secret("secret"), s.choice("choice", &["right"])));
        s.secret("signing");
    });
    assert_eq!(reading.faults.len(), 8);
    let printed: String = reading.faults.iter().map(|fault| fault.show("f.toml") + &format!("{fault:?}")).collect();
    for secret in ["plain-secret", "tok-secret"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

#[test]
fn a_fingerprint_changes_with_what_the_table_means_and_with_nothing_else() {
    let print = |text: &str, token: &'static str| {
        let env = move |_: &str| Some(token.to_owned());
        let outside = Outside::new(&env, std::path::Path::new(""));
        read(text, &outside, |s| {
            s.pardon();
            s.fingerprint()
        })
        .value
        .unwrap()
    };
    let base = print("a = 1\nb = [\"${T}\", { c = true }]\n", "x");
    assert_eq!(base, print("# hello\nb   = ['${T}', {c=true}]\na = 1", "x"));
    for (text, token) in [
        ("a = 1\nb = [\"${T}\", { c = true }]\n", "y"),
        ("a = \"1\"\nb = [\"${T}\", { c = true }]\n", "x"),
        ("a = 1\nb = [\"${T}\", { c = false }]\n", "x"),
        ("a = 1\nb = [\"${T}\"]\n", "x"),
    ] {
        assert_ne!(base, print(text, token), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_reading_panic(text in "(?s).{0,200}", pieces in proptest::collection::vec("[a-c]|=|\"|'|\\[|\\]|\\{|\\}|\n|#|\\$|,|\\.| |1|é", 0..60)) {
        for text in [text, pieces.concat()] {
            let reading = read(&text, &Outside::nothing(), |s| {
                s.text("a");
                s.json("b");
                s.secrets("c");
                s.fingerprint()
            });
            reading.faults.iter().for_each(|fault| { std::hint::black_box(fault.show("f")); });
        }
    }
}

#[test]
fn deep_nesting_is_refused_and_not_followed() {
    for text in [
        "[".repeat(100_000),
        format!("a={}", "[".repeat(100_000)),
        format!("a={}", "{a=".repeat(50_000)),
        format!("a{} = 1", ".a".repeat(20_000)),
    ] {
        let reading = read(&text, &Outside::nothing(), |s| s.json("a"));
        assert!(!reading.faults.is_empty());
    }
}
