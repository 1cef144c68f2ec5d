//! The wire format of the Auto Scaling Query API (`awsQuery`): form bodies in, XML out.

use super::faults::ErrorAnswer;
use bytes::Bytes;
use http::{Response, StatusCode, header};
use std::collections::BTreeMap;
use std::str::FromStr;

const NAMESPACE: &str = "http://autoscaling.amazonaws.com/doc/2011-01-01/";

/// The parameters of one request.
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads `application/x-www-form-urlencoded`.
    pub(super) fn parse(body: &[u8]) -> Self {
        let body = String::from_utf8_lossy(body);
        let pairs = body.split('&').filter(|pair| !pair.is_empty());
        Self(pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(decoded).collect())
    }

    /// A parameter; an empty one counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn require(&self, name: &str) -> Result<&str, ErrorAnswer> {
        self.get(name).ok_or_else(|| {
            ErrorAnswer::validation(format!(
                "1 validation error detected: Value null at '{}' failed to satisfy constraint: Member must not be \
                 null",
                lower_first(name)
            ))
        })
    }

    pub(super) fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, ErrorAnswer> {
        self.get(name).map(|text| text.parse().map_err(|_| malformed(name, text))).transpose()
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, ErrorAnswer> {
        self.number(name)
    }

    /// The items of `name.member.N`, in order.
    pub(super) fn list(&self, name: &str) -> Vec<&str> {
        (1..).map_while(|n| self.0.get(&format!("{name}.member.{n}"))).map(String::as_str).collect()
    }

    /// The items of `Filters.member.N`: each filter's name and values.
    pub(super) fn filters(&self) -> Vec<(&str, Vec<&str>)> {
        (1..)
            .map_while(|n| {
                let name = self.0.get(&format!("Filters.member.{n}.Name"))?;
                Some((name.as_str(), self.list(&format!("Filters.member.{n}.Values"))))
            })
            .collect()
    }

    /// `MaxRecords`, which has a default and a largest value.
    pub(super) fn max_records(&self, default: usize, largest: usize) -> Result<usize, ErrorAnswer> {
        let wanted = self.number("MaxRecords")?.unwrap_or(default);
        if (1..=largest).contains(&wanted) {
            return Ok(wanted);
        }
        let message = format!("The value {wanted} for MaxRecords is not between 1 and {largest}.");
        Err(ErrorAnswer::validation(message))
    }
}

fn malformed(name: &str, text: &str) -> ErrorAnswer {
    ErrorAnswer::bad_request("MalformedInput", format!("{text} is no value for {name}"))
}

fn lower_first(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

fn decoded((name, value): (&str, &str)) -> (String, String) {
    (percent_decode(name), percent_decode(value))
}

fn percent_decode(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => decoded.push(b' '),
            b'%' => {
                let digits: Vec<u8> = bytes.by_ref().take(2).collect();
                let value =
                    std::str::from_utf8(&digits).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
                decoded.extend(value);
            }
            _ => decoded.push(byte),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Writes XML; texts are escaped, element names are ours.
#[derive(Default)]
pub(super) struct Xml(String);

impl Xml {
    pub(super) fn element(&mut self, name: &str, content: impl FnOnce(&mut Self)) {
        self.0.push('<');
        self.0.push_str(name);
        self.0.push('>');
        content(self);
        self.close(name);
    }

    pub(super) fn text(&mut self, name: &str, text: impl ToString) {
        self.element(name, |xml| xml.0.push_str(&escaped(&text.to_string())));
    }

    pub(super) fn text_opt(&mut self, name: &str, text: Option<impl ToString>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    /// A list: one `member` per item.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        self.element(name, |xml| {
            for item in items {
                xml.element("member", |xml| write(xml, item));
            }
        });
    }

    /// A list of plain texts.
    pub(super) fn texts<T: ToString>(&mut self, name: &str, items: impl IntoIterator<Item = T>) {
        self.list(name, items, |xml, item| xml.0.push_str(&escaped(&item.to_string())));
    }

    fn close(&mut self, name: &str) {
        self.0.push_str("</");
        self.0.push_str(name);
        self.0.push('>');
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            // XML 1.0 has no way to write the other control characters.
            c if c < ' ' && !matches!(c, '\t' | '\n' | '\r') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The answer to a call that went well; `result` is the content of its result element, if it has one.
pub(super) fn success(operation: &str, result: Option<&str>, request_id: &str) -> Response<Bytes> {
    let result =
        result.map(|result| format!("<{operation}Result>{result}</{operation}Result>")).unwrap_or_default();
    let body = format!(
        "<{operation}Response xmlns=\"{NAMESPACE}\">{result}<ResponseMetadata><RequestId>{request_id}</RequestId>\
         </ResponseMetadata></{operation}Response>"
    );
    response(StatusCode::OK, body, request_id)
}

/// The answer to a call that was refused.
pub(super) fn refusal(refusal: &ErrorAnswer, request_id: &str) -> Response<Bytes> {
    let fault = if refusal.status.is_server_error() { "Receiver" } else { "Sender" };
    let body = format!(
        "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>{fault}</Type><Code>{}</Code><Message>{}</Message></Error>\
         <RequestId>{request_id}</RequestId></ErrorResponse>",
        escaped(&refusal.code),
        escaped(&refusal.message)
    );
    response(refusal.status, body, request_id)
}

fn response(status: StatusCode, body: String, request_id: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/xml"));
    if let Ok(id) = header::HeaderValue::from_str(request_id) {
        headers.insert("x-amzn-requestid", id);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_form_bodies() {
        let query = Query::parse(
            b"Action=X&A.member.1=a%2Fb+c&A.member.2=%C3%A9&E=&Filters.member.1.Name=tag%3Ak\
            &Filters.member.1.Values.member.1=v",
        );
        assert_eq!(query.get("Action"), Some("X"));
        assert_eq!(query.list("A"), ["a/b c", "é"]);
        assert_eq!(query.get("E"), None);
        assert_eq!(query.filters(), [("tag:k", vec!["v"])]);
    }

    #[test]
    fn escapes_texts() {
        let mut xml = Xml::default();
        xml.text("A", "<a & 'b' \"c\">\u{1}");
        assert_eq!(xml.into_string(), "<A>&lt;a &amp; &apos;b&apos; &quot;c&quot;&gt;\u{fffd}</A>");
    }
}
