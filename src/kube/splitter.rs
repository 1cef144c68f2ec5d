//! Cuts a stream of JSON into single objects as it arrives: one object is held at most, whatever the whole
//! weighs.
//!
//! Braces and strings are counted and nothing else: whether an object can be read is its reader's business.

use std::fmt;

/// An object above this size is passed over. The API server takes requests of 3 MiB at most (its
/// `MaxRequestBodyBytes` in staging/src/k8s.io/apiserver/pkg/server/config.go).
pub const MAX_OBJECT: usize = 16 << 20;
/// What a list says besides its items: versions and a token.
const MAX_REST: usize = 64 << 10;

/// What the stream is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Objects, one after another: the events of a watch.
    Events,
    /// One object, whose array `items` holds those that are meant: a list.
    Items,
}

/// What was cut out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// An object, from brace to brace.
    Object(&'a [u8]),
    /// An object above [`MAX_OBJECT`] was passed over.
    TooLarge,
}

/// Why a stream cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uncut {
    /// Something stands where an object should.
    NoObject,
    /// A list says too much besides its items.
    TooMuchRest,
    /// The stream ended within an object or within the list.
    Truncated,
}

impl fmt::Display for Uncut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoObject => "something else stands where an object should",
            Self::TooMuchRest => "a list says too much besides its items",
            Self::Truncated => "the answer ended too early",
        })
    }
}

/// How deep a position lies in brackets, and whether in a string.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Position {
    /// Passes one byte; `None`: a bracket closes that was not opened.
    fn pass(&mut self, byte: u8) -> Option<()> {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return Some(());
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.checked_sub(1)?,
            _ => {}
        }
        Some(())
    }

    /// How many of these bytes belong to the object that is open; the second says whether it ends there.
    fn pass_object(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if self.in_string && !self.escaped {
                // The bulk of most objects: nothing but a quote or a backslash means anything here.
                let plain = bytes[at..].iter().position(|byte| matches!(byte, b'"' | b'\\'));
                let Some(plain) = plain else { return (bytes.len(), false) };
                at += plain;
                self.escaped = bytes[at] == b'\\';
                self.in_string = self.escaped;
                at += 1;
                continue;
            }
            // An object is open: no bracket can close that was not opened.
            let _ = self.pass(*byte);
            at += 1;
            if self.depth == 0 {
                return (at, true);
            }
        }
        (bytes.len(), false)
    }
}

/// Cuts one stream.
#[derive(Debug)]
pub struct Splitter {
    shape: Shape,
    /// In the object that is being cut; no depth: in none.
    inner: Position,
    /// What came of it in earlier bytes.
    held: Vec<u8>,
    too_large: bool,
    /// In what stands around the items.
    outer: Position,
    in_items: bool,
    rest: Vec<u8>,
}

impl Splitter {
    /// Nothing has come yet.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        Self {
            shape,
            inner: Position::default(),
            held: Vec::new(),
            too_large: false,
            outer: Position::default(),
            in_items: false,
            rest: Vec::new(),
        }
    }

    /// Takes in the next bytes and hands out each object that ends in them.
    ///
    /// # Errors
    /// If the stream is not of its shape; nothing more can be cut from it.
    pub fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Piece<'_>)) -> Result<(), Uncut> {
        while let Some(byte) = bytes.first() {
            if self.inner.depth > 0 {
                let (length, ends) = self.inner.pass_object(bytes);
                let (own, next) = bytes.split_at(length);
                self.take(own, ends, &mut each);
                bytes = next;
                continue;
            }
            let expects_objects = self.in_items || self.shape == Shape::Events;
            match byte {
                b'{' if expects_objects => {
                    // Counted with the rest of the object.
                    self.inner = Position { depth: 1, ..Position::default() };
                    self.held.clear();
                    self.held.push(*byte);
                    let (length, ends) = self.inner.pass_object(&bytes[1..]);
                    let (own, next) = bytes.split_at(length + 1);
                    if ends && own.len() <= MAX_OBJECT {
                        each(Piece::Object(own));
                    } else {
                        self.take(&own[1..], ends, &mut each);
                    }
                    bytes = next;
                    continue;
                }
                b']' if self.in_items => {
                    self.in_items = false;
                    self.around(*byte)?;
                }
                b',' if self.in_items => {}
                b' ' | b'\t' | b'\r' | b'\n' if !self.outer.in_string => {}
                _ if expects_objects => return Err(Uncut::NoObject),
                b'[' if !self.outer.in_string && self.outer.depth == 1 && self.is_items() => {
                    self.around(*byte)?;
                    self.in_items = true;
                }
                byte => self.around(*byte)?,
            }
            bytes = &bytes[1..];
        }
        Ok(())
    }

    /// What stands around the items, once the stream has ended; empty for events.
    ///
    /// # Errors
    /// If it ended too early.
    pub fn finish(self) -> Result<Vec<u8>, Uncut> {
        let whole = self.inner.depth == 0 && self.outer.depth == 0 && !self.in_items;
        let begun = self.shape == Shape::Events || !self.rest.is_empty();
        if whole && begun { Ok(self.rest) } else { Err(Uncut::Truncated) }
    }

    fn take(&mut self, own: &[u8], ends: bool, each: &mut impl FnMut(Piece<'_>)) {
        self.too_large |= self.held.len() + own.len() > MAX_OBJECT;
        if self.too_large {
            self.held = Vec::new();
        } else {
            self.held.extend_from_slice(own);
        }
        if ends {
            each(if std::mem::take(&mut self.too_large) {
                Piece::TooLarge
            } else {
                Piece::Object(&self.held)
            });
            // One large object is no reason to hold so much for ever.
            self.held = Vec::new();
        }
    }

    fn around(&mut self, byte: u8) -> Result<(), Uncut> {
        if self.rest.len() == MAX_REST {
            return Err(Uncut::TooMuchRest);
        }
        if self.rest.is_empty() && byte != b'{' || !self.rest.is_empty() && self.outer.depth == 0 {
            return Err(Uncut::NoObject);
        }
        self.rest.push(byte);
        self.outer.pass(byte).ok_or(Uncut::NoObject)
    }

    /// Whether the value that comes next is that of `items`.
    fn is_items(&self) -> bool {
        // A quote within a longer key has a backslash before it. Space is not kept.
        self.rest.strip_suffix(b"\"items\":").is_some_and(|before| before.last() != Some(&b'\\'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn cut(shape: Shape, text: &[u8], sizes: &[usize]) -> Result<(Vec<Value>, Vec<u8>), Uncut> {
        let mut splitter = Splitter::new(shape);
        let mut found = Vec::new();
        let (mut rest, mut sizes) = (text, sizes.iter().cycle());
        while !rest.is_empty() {
            let size = sizes.next().map_or(rest.len(), |size| (*size).clamp(1, rest.len()));
            let (chunk, next) = rest.split_at(size);
            splitter.feed(chunk, |piece| match piece {
                Piece::Object(bytes) => {
                    found.push(serde_json::from_slice(bytes).expect("what is cut out is whole"));
                }
                Piece::TooLarge => found.push(Value::Null),
            })?;
            rest = next;
        }
        Ok((found, splitter.finish()?))
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,8}|[\\[\\]{}\",:\\\\]{0,6}|items".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                object(inner).prop_map(Value::from),
            ]
        })
    }

    fn object(of: impl Strategy<Value = Value>) -> impl Strategy<Value = serde_json::Map<String, Value>> {
        let keys = "[a-z]{0,3}|items|[\\[\\]{}\",:\\\\]{0,4}|[\"\\\\]items";
        prop::collection::btree_map(keys, of, 0..4).prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #[test]
        fn any_chunking_of_a_list_gives_the_objects_of_the_whole(
            around in object(value()),
            items in prop::collection::vec(object(value()), 0..5),
            sizes in prop::collection::vec(1..40usize, 1..6),
            pretty in any::<bool>(),
        ) {
            let mut list = around;
            list.insert("items".to_owned(), json!(items));
            let text = if pretty { serde_json::to_vec_pretty(&list) } else { serde_json::to_vec(&list) };
            let (found, rest) = cut(Shape::Items, &text.unwrap(), &sizes).unwrap();
            prop_assert_eq!(found, items.into_iter().map(Value::from).collect::<Vec<_>>());
            list.insert("items".to_owned(), json!([]));
            prop_assert_eq!(serde_json::from_slice::<Value>(&rest).unwrap(), Value::from(list));
        }

        #[test]
        fn any_chunking_of_a_watch_gives_its_events(
            events in prop::collection::vec(object(value()), 0..5),
            sizes in prop::collection::vec(1..40usize, 1..6),
        ) {
            let lines: String = events.iter().map(|event| format!("{}\n", json!(event))).collect();
            let (found, rest) = cut(Shape::Events, lines.as_bytes(), &sizes).unwrap();
            prop_assert_eq!(found, events.into_iter().map(Value::from).collect::<Vec<_>>());
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn no_bytes_make_it_panic(text in prop::collection::vec(any::<u8>(), 0..200), chunk in 1..50usize) {
            for shape in [Shape::Events, Shape::Items] {
                let mut splitter = Splitter::new(shape);
                let fed = text.chunks(chunk).try_for_each(|chunk| splitter.feed(chunk, |_| {}));
                let _ = fed.and_then(|()| splitter.finish());
            }
        }
    }

    #[test]
    fn a_list_that_ends_early_or_is_none_is_an_error() {
        for text in ["", "{", r#"{"items":["#, r#"{"items":[{"a":1}"#, r#"{"items":[{"a":"#] {
            assert_eq!(cut(Shape::Items, text.as_bytes(), &[7]), Err(Uncut::Truncated), "{text}");
        }
        for text in ["[]", "x", r#"{"items":[1]}"#, "{}{}", "}"] {
            assert_eq!(cut(Shape::Items, text.as_bytes(), &[7]), Err(Uncut::NoObject), "{text}");
        }
        assert_eq!(cut(Shape::Events, b"{\"a\":1}\n{\"b", &[3]), Err(Uncut::Truncated));
        assert_eq!(cut(Shape::Items, br#"{"items":null}"#, &[3]).map(|(found, _)| found), Ok(Vec::new()));
        let endless = format!(r#"{{"x":"{}"}}"#, "y".repeat(MAX_REST));
        assert_eq!(cut(Shape::Items, endless.as_bytes(), &[4096]), Err(Uncut::TooMuchRest));
    }

    #[test]
    fn an_object_that_is_too_large_is_passed_over_and_not_held() {
        let mut splitter = Splitter::new(Shape::Items);
        let mut found = Vec::new();
        let mut each = |piece: Piece<'_>| found.push(matches!(piece, Piece::TooLarge));
        splitter.feed(br#"{"items":[{"x":"#, &mut each).unwrap();
        let filler = vec![b'1'; 1 << 20];
        for _ in 0..20 {
            splitter.feed(&filler, &mut each).unwrap();
            assert!(splitter.held.len() <= MAX_OBJECT);
        }
        splitter.feed(br#"},{"y":1}]}"#, &mut each).unwrap();
        assert_eq!(found, [true, false]);
    }
}
