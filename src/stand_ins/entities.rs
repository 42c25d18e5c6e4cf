//! Telegram's HTML, parsed as its server does, down to the wording of its errors.
//!
//! Source: tdlib/td, `parse_html` in `td/telegram/MessageEntity.cpp`.

/// The tags that Telegram knows.
const TAGS: [&str; 17] = [
    "a",
    "b",
    "strong",
    "i",
    "em",
    "s",
    "strike",
    "del",
    "u",
    "ins",
    "tg-spoiler",
    "tg-emoji",
    "tg-time",
    "span",
    "pre",
    "code",
    "blockquote",
];

/// The text as people see it, or why the message is refused. Offsets count bytes.
pub(super) fn parse_html(text: &str) -> Result<String, String> {
    let mut parser = Parser { text, at: 0 };
    let mut shown = String::with_capacity(text.len());
    let mut open: Vec<String> = Vec::new();
    while let Some(c) = parser.peek() {
        match c {
            '<' if parser.rest().starts_with("</") => parser.end_tag(&mut open)?,
            '<' => {
                let tag = parser.start_tag()?;
                open.push(tag);
            }
            '&' => shown.push(parser.entity().unwrap_or_else(|| {
                parser.at += 1;
                '&'
            })),
            other => {
                parser.at += other.len_utf8();
                shown.push(other);
            }
        }
    }
    match open.pop() {
        Some(tag) => Err(format!("Can't find end tag corresponding to start tag \"{tag}\"")),
        None => Ok(shown),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Takes characters as long as `wanted` holds.
    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn end_tag(&mut self, open: &mut Vec<String>) -> Result<(), String> {
        let begin = self.at;
        let Some(expected) = open.pop() else { return Err(format!("Unexpected end tag at byte offset {begin}")) };
        self.at += 2;
        let name = self.take_while(|c| !c.is_ascii_whitespace() && c != '>').to_ascii_lowercase();
        self.take_while(|c| c.is_ascii_whitespace());
        if self.peek() != Some('>') {
            return Err(format!("Unclosed end tag at byte offset {begin}"));
        }
        self.at += 1;
        if !name.is_empty() && name != expected {
            return Err(format!(
                "Unmatched end tag at byte offset {begin}, expected \"</{expected}>\", found \"</{name}>\""
            ));
        }
        Ok(())
    }

    fn start_tag(&mut self) -> Result<String, String> {
        let begin = self.at;
        self.at += 1;
        let tag = self.take_while(|c| !c.is_ascii_whitespace() && c != '>').to_ascii_lowercase();
        if self.peek().is_none() {
            return Err(format!("Unclosed start tag at byte offset {begin}"));
        }
        let mut spoiler = false;
        if !TAGS.contains(&tag.as_str()) {
            return Err(format!("Unsupported start tag \"{tag}\" at byte offset {begin}"));
        }
        loop {
            self.take_while(|c| c.is_ascii_whitespace());
            match self.peek() {
                None => return Err(format!("Unclosed start tag \"{tag}\" at byte offset {begin}")),
                Some('>') => {
                    self.at += 1;
                    break;
                }
                Some(_) => spoiler |= self.attribute(&tag, begin)?,
            }
        }
        if tag == "span" && !spoiler {
            return Err(format!("Tag \"span\" must have class \"tg-spoiler\" at byte offset {begin}"));
        }
        Ok(tag)
    }

    /// Reads one attribute; says whether it makes its tag a spoiler.
    fn attribute(&mut self, tag: &str, begin: usize) -> Result<bool, String> {
        let name = self.take_while(|c| !c.is_ascii_whitespace() && c != '=' && c != '>');
        if name.is_empty() {
            return Err(format!("Empty attribute name in the tag \"{tag}\" at byte offset {begin}"));
        }
        self.take_while(|c| c.is_ascii_whitespace());
        if self.peek() != Some('=') {
            // The one attribute that may stand alone.
            if tag == "blockquote" && name == "expandable" {
                return Ok(false);
            }
            return Err(format!(
                "Expected equal sign in declaration of an attribute of the tag \"{tag}\" at byte offset {begin}"
            ));
        }
        self.at += 1;
        self.take_while(|c| c.is_ascii_whitespace());
        let value = match self.peek() {
            None => return Err(format!("Unclosed start tag \"{tag}\" at byte offset {begin}")),
            Some(quote @ ('"' | '\'')) => {
                self.at += 1;
                let value = self.take_while(|c| c != quote);
                if self.peek().is_none() {
                    return Err(format!("Unclosed start tag at byte offset {begin}"));
                }
                self.at += 1;
                value
            }
            Some(_) => {
                let token = self.at;
                let value = self.take_while(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-');
                if !self.peek().is_some_and(|c| c.is_ascii_whitespace() || c == '>') {
                    return Err(format!("Unexpected end of name token at byte offset {token}"));
                }
                value
            }
        };
        Ok(name == "class" && value == "tg-spoiler")
    }

    /// One of the four named entities or a numeric one, with or without its semicolon; `None` leaves the `&` as it is.
    fn entity(&mut self) -> Option<char> {
        let rest = self.rest();
        let (c, length) = if let Some(number) = rest.strip_prefix("&#") {
            let (digits, radix, prefix) = match number.strip_prefix('x') {
                Some(hex) => (hex, 16, 3),
                None => (number, 10, 2),
            };
            let length = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
            let code = u32::from_str_radix(&digits[..length], radix).ok()?;
            (char::from_u32(code).filter(|c| *c != '\0')?, prefix + length)
        } else {
            let length = rest[1..].find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len() - 1);
            let c = match &rest[1..=length] {
                "lt" => '<',
                "gt" => '>',
                "amp" => '&',
                "quot" => '"',
                _ => return None,
            };
            (c, 1 + length)
        };
        self.at += length;
        if self.rest().starts_with(';') {
            self.at += 1;
        }
        Some(c)
    }
}

#[cfg(test)]
mod tests {
    use super::parse_html;

    #[test]
    fn what_people_see_is_the_text_without_tags_and_with_entities_resolved() {
        let cases = [
            ("plain é", "plain é"),
            ("<b>bold</b> <a href=\"https://x.example/?a=1&amp;b\">link</a>", "bold link"),
            ("&lt;b&gt; &amp; &quot; &#33; &#x21;", "<b> & \" ! !"),
            ("<pre><code class=\"language-rust\">fn</code></pre>", "fn"),
            ("<blockquote expandable>q</blockquote><span class=\"tg-spoiler\">s</span>", "qs"),
            ("<B>x</b ><i>y</>", "xy"),
            ("&apos; & &nbsp; a&b", "&apos; & &nbsp; a&b"),
        ];
        for (html, shown) in cases {
            assert_eq!(parse_html(html).as_deref(), Ok(shown), "{html}");
        }
    }

    #[test]
    fn what_the_server_refuses_is_refused_in_its_words() {
        let cases = [
            ("a <x>", "Unsupported start tag \"x\" at byte offset 2"),
            ("é<", "Unclosed start tag at byte offset 2"),
            ("<b", "Unclosed start tag at byte offset 0"),
            ("x < y > z", "Unsupported start tag \"\" at byte offset 2"),
            ("</b>", "Unexpected end tag at byte offset 0"),
            ("<b>x</i>", "Unmatched end tag at byte offset 4, expected \"</b>\", found \"</i>\""),
            ("<b><i>x</i>", "Can't find end tag corresponding to start tag \"b\""),
            ("<b>x</b", "Unclosed end tag at byte offset 4"),
            ("<a href>x</a>", "Expected equal sign in declaration of an attribute of the tag \"a\" at byte offset 0"),
            ("<a href=\"x>y</a>", "Unclosed start tag at byte offset 0"),
            ("<span>x</span>", "Tag \"span\" must have class \"tg-spoiler\" at byte offset 0"),
        ];
        for (html, why) in cases {
            assert_eq!(parse_html(html), Err(why.to_owned()), "{html}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[<>/&#x;= \"'a-cé\\n]{0,60}") {
            drop(parse_html(&text));
        }
    }
}
