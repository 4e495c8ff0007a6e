//! A reader of JSON by RFC 8259, with the text of every value and its place.

use std::ops::Range;

/// One value.
#[derive(Debug, Clone)]
pub struct Value<'a> {
    /// Its text, without the blanks around it.
    pub raw: &'a str,
    /// Where its text stands in the whole.
    pub place: Range<usize>,
    /// What it is.
    pub shape: Shape<'a>,
}

/// What a value is.
#[derive(Debug, Clone)]
pub enum Shape<'a> {
    /// An object: its members in order, a key as often as it stands there.
    Object(Vec<(Text, Value<'a>)>),
    /// An array.
    Array(Vec<Value<'a>>),
    /// A string.
    String(Text),
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// `null`.
    Null,
}

/// The contents of a string; `None` for one with half of a surrogate pair, which is JSON and no text.
pub type Text = Option<String>;

/// Why a text was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It is not JSON.
    NotJson,
    /// This reader gives up on so deep a text, and says nothing of it.
    TooDeep,
}

const DEEPEST: usize = 100;
const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

impl<'a> Value<'a> {
    /// The members of an object.
    pub fn members(&self) -> Option<&[(Text, Value<'a>)]> {
        match &self.shape {
            Shape::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The first member of this name, of an object that may hold it more than once.
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.all(name).first().copied()
    }

    /// Every member of this name.
    pub fn all(&self, name: &str) -> Vec<&Value<'a>> {
        let members = self.members().unwrap_or_default();
        members.iter().filter(|(key, _)| key.as_deref() == Some(name)).map(|(_, value)| value).collect()
    }

    /// The contents of a string that is a text.
    pub fn text(&self) -> Option<&str> {
        match &self.shape {
            Shape::String(text) => text.as_deref(),
            _ => None,
        }
    }

    /// Whether it is a string, be it a text or not.
    pub fn is_string(&self) -> bool {
        matches!(self.shape, Shape::String(_))
    }

    /// Whether it is a number.
    pub fn is_number(&self) -> bool {
        matches!(self.shape, Shape::Number)
    }

    /// The elements of an array.
    pub fn elements(&self) -> Option<&[Value<'a>]> {
        match &self.shape {
            Shape::Array(elements) => Some(elements),
            _ => None,
        }
    }
}

/// Reads a text that is one JSON value.
///
/// # Errors
/// Where it is not, or too deep.
pub fn read(text: &str) -> Result<Value<'_>, Unread> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.blanks();
    if reader.at == text.len() { Ok(value) } else { Err(Unread::NotJson) }
}

/// Reads the JSON value that a text begins with, whatever follows it.
///
/// # Errors
/// Where there is none, or too deep a one.
pub fn read_start(text: &str) -> Result<Value<'_>, Unread> {
    Reader { text, at: 0 }.value(0)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start_matches(BLANKS).len();
    }

    /// Takes `part` where it comes next.
    fn take(&mut self, part: &str) -> bool {
        let found = self.rest().starts_with(part);
        self.at += if found { part.len() } else { 0 };
        found
    }

    fn must(&mut self, part: &str) -> Result<(), Unread> {
        if self.take(part) { Ok(()) } else { Err(Unread::NotJson) }
    }

    fn value(&mut self, depth: usize) -> Result<Value<'a>, Unread> {
        if depth > DEEPEST {
            return Err(Unread::TooDeep);
        }
        self.blanks();
        let start = self.at;
        let shape = match self.rest().bytes().next().ok_or(Unread::NotJson)? {
            b'{' => self.object(depth)?,
            b'[' => self.array(depth)?,
            b'"' => Shape::String(self.string()?),
            b't' => self.must("true").map(|()| Shape::Boolean)?,
            b'f' => self.must("false").map(|()| Shape::Boolean)?,
            b'n' => self.must("null").map(|()| Shape::Null)?,
            _ => self.number().map(|()| Shape::Number)?,
        };
        Ok(Value { raw: &self.text[start..self.at], place: start..self.at, shape })
    }

    fn object(&mut self, depth: usize) -> Result<Shape<'a>, Unread> {
        let mut members = Vec::new();
        self.must("{")?;
        self.blanks();
        if !self.take("}") {
            loop {
                self.blanks();
                let key = self.string()?;
                self.blanks();
                self.must(":")?;
                members.push((key, self.value(depth + 1)?));
                self.blanks();
                if !self.take(",") {
                    break;
                }
            }
            self.must("}")?;
        }
        Ok(Shape::Object(members))
    }

    fn array(&mut self, depth: usize) -> Result<Shape<'a>, Unread> {
        let mut elements = Vec::new();
        self.must("[")?;
        self.blanks();
        if !self.take("]") {
            loop {
                elements.push(self.value(depth + 1)?);
                self.blanks();
                if !self.take(",") {
                    break;
                }
            }
            self.must("]")?;
        }
        Ok(Shape::Array(elements))
    }

    fn digits(&mut self) -> Result<(), Unread> {
        let count = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        self.at += count;
        if count > 0 { Ok(()) } else { Err(Unread::NotJson) }
    }

    fn number(&mut self) -> Result<(), Unread> {
        self.take("-");
        if !self.take("0") {
            self.digits()?;
        }
        if self.take(".") {
            self.digits()?;
        }
        if self.take("e") || self.take("E") {
            let _ = self.take("+") || self.take("-");
            self.digits()?;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<Text, Unread> {
        self.must("\"")?;
        // In UTF-16, where a pair may be written as two escapes.
        let mut units: Vec<u16> = Vec::new();
        loop {
            let next = self.rest().chars().next().ok_or(Unread::NotJson)?;
            self.at += next.len_utf8();
            match next {
                '"' => return Ok(String::from_utf16(&units).ok()),
                '\\' => units.push(self.escape()?),
                '\0'..='\u{1f}' => return Err(Unread::NotJson),
                other => units.extend_from_slice(other.encode_utf16(&mut [0; 2])),
            }
        }
    }

    fn escape(&mut self) -> Result<u16, Unread> {
        let next = self.rest().bytes().next().ok_or(Unread::NotJson)?;
        let plain = match next {
            b'"' | b'\\' | b'/' => next,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let digits = self.rest().get(1..5).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
                self.at += 5;
                return digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()).ok_or(Unread::NotJson);
            }
            _ => return Err(Unread::NotJson),
        };
        self.at += 1;
        Ok(u16::from(plain))
    }
}
