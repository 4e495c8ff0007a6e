//! The servers' own HTTP: a strict reader of requests and a builder of answers, byte by byte.

use serde_json::Value;

/// A request as it stood on the wire.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The first line, without its line end.
    pub line: String,
    /// The headers in order, names as they were written.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// How many bytes head and body have together.
    pub length: usize,
}

impl Request {
    /// The request at the start of `raw`; `None` when it is not whole yet, and what is wrong with it otherwise.
    pub fn parse(raw: &[u8]) -> Result<Option<Request>, String> {
        let Some(end) = find(raw, b"\r\n\r\n") else { return Ok(None) };
        let head = std::str::from_utf8(&raw[..end]).map_err(|_| "the head is not UTF-8".to_owned())?;
        let mut lines = head.split("\r\n");
        let line = lines.next().expect("split gives one part at least").to_owned();
        let mut headers = Vec::new();
        for header in lines {
            let (name, value) = header.split_once(": ").ok_or_else(|| format!("not a header: {header:?}"))?;
            let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(token) {
                return Err(format!("not a header's name: {name:?}"));
            }
            if value.chars().any(char::is_control) || value.trim() != value {
                return Err(format!("not a header's value: {value:?}"));
            }
            headers.push((name.to_owned(), value.to_owned()));
        }
        if line.chars().any(char::is_control) || line.split(' ').count() != 3 {
            return Err(format!("not a request line: {line:?}"));
        }
        let mut request = Request { line, headers, body: Vec::new(), length: 0 };
        if request.header("Transfer-Encoding").is_some() {
            return Err("Transfer-Encoding in the request".to_owned());
        }
        let length: usize = match request.all("Content-Length").as_slice() {
            [] if request.line.starts_with("HEAD ") => 0,
            [length] if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                length.parse().map_err(|_| format!("Content-Length {length}"))?
            }
            other => return Err(format!("Content-Length: {other:?}")),
        };
        let start = end + 4;
        let Some(body) = raw.get(start..start + length) else { return Ok(None) };
        request.body = body.to_vec();
        request.length = start + length;
        Ok(Some(request))
    }

    /// The values of all headers of this name, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value).collect()
    }

    /// The value of a header that stands there once.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} stands in the head more than once: {all:?}");
        all.first().copied()
    }

    /// The task's own number; that of a HEAD is empty.
    pub fn out_task_num(&self) -> Result<String, String> {
        if self.line.starts_with("HEAD ") {
            return Ok(String::new());
        }
        let body: Value = serde_json::from_slice(&self.body).map_err(|error| format!("the body: {error}"))?;
        match body["out_task_num"].as_str() {
            Some(number) => Ok(number.to_owned()),
            None => Err("the body has no out_task_num".to_owned()),
        }
    }
}

/// Where `part` starts in `whole`.
pub fn find(whole: &[u8], part: &[u8]) -> Option<usize> {
    whole.windows(part.len()).position(|window| window == part)
}

/// The body that says that the appointment was made, with the blanks and unknown fields of a server of its own mind.
pub fn success_body(number: &str) -> String {
    format!("{{ \"status\":1,\"message\" : \"success\",\n\t\"info\":{{\"task_num\":\"T-{number}\",\"zone\":null}} }}")
}

/// The whole answer that says that the appointment was made.
pub fn success(number: &str) -> Vec<u8> {
    answer("200 OK", Framing::Length, success_body(number).as_bytes())
}

/// The body that says that the appointment was refused.
pub fn failure_body(message: &str) -> String {
    serde_json::json!({ "status": 0, "message": message }).to_string()
}

/// A head: the status line, these header lines, and the empty line.
pub fn head(status: &str, headers: &[&str]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// How an answer's length is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// `Content-Length`.
    Length,
    /// `Transfer-Encoding: chunked`, in chunks of this size.
    Chunked(usize),
    /// The end of the connection ends the body.
    Close,
}

/// A whole answer of type JSON.
pub fn answer(status: &str, framing: Framing, body: &[u8]) -> Vec<u8> {
    let mut whole = answer_head(status, framing, body.len());
    match framing {
        Framing::Length | Framing::Close => whole.extend_from_slice(body),
        Framing::Chunked(size) => whole.extend(chunks(body, size, "", "")),
    }
    whole
}

/// The head of an answer of type JSON.
pub fn answer_head(status: &str, framing: Framing, length: usize) -> Vec<u8> {
    let framing = match framing {
        Framing::Length => format!("Content-Length: {length}"),
        Framing::Chunked(_) => "Transfer-Encoding: chunked".to_owned(),
        Framing::Close => "Connection: close".to_owned(),
    };
    head(status, &["Content-Type: application/json", &framing])
}

/// A chunked body: every chunk's size line ends in `extension`, and `trailers` stand before the last empty line.
pub fn chunks(body: &[u8], size: usize, extension: &str, trailers: &str) -> Vec<u8> {
    let mut whole = Vec::new();
    for chunk in body.chunks(size) {
        whole.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
        whole.extend_from_slice(chunk);
        whole.extend_from_slice(b"\r\n");
    }
    whole.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
    whole
}

/// What a server said, as far as a client must be able to tell: read from the bytes that were sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The status of the first head that is not an interim one.
    pub status: u16,
    /// The body, when its length is told by one Content-Length alone and all of it was sent.
    pub body: Option<Vec<u8>>,
}

impl Said {
    /// Reads the bytes of one answer, and no further; `None` unless a well-formed final head is whole.
    pub fn read(mut sent: &[u8]) -> Option<Said> {
        loop {
            let end = find(sent, b"\r\n\r\n")?;
            let head = std::str::from_utf8(&sent[..end]).ok()?;
            let mut lines = head.split("\r\n");
            let status: u16 = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
            sent = &sent[end + 4..];
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let framing: Vec<&str> = lines
                .filter(|line| {
                    let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
                    ["content-length", "transfer-encoding", "content-encoding"].contains(&&*name)
                })
                .collect();
            let body = match framing.as_slice() {
                [one] => one
                    .strip_prefix("Content-Length: ")
                    .and_then(|length| length.parse().ok())
                    .and_then(|length: usize| sent.get(..length))
                    .map(<[u8]>::to_vec),
                _ => None,
            };
            return Some(Said { status, body });
        }
    }
}
