//! Payloads that are text: JSON, one plain word, or lines `KEY=value`.

use serde_json::Value as Json;

use crate::field::Raw;
use crate::profile::Document;
use crate::reject::Reject;

/// Longest payload that is looked at. A device of a home sends some hundred bytes; a camera's picture is none of ours.
pub const PAYLOAD_LENGTH_MAX: usize = 64 * 1024;

/// A payload, read.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// A JSON value.
    Json(Json),
    /// One word.
    Text(String),
    /// Keys and values in their order.
    Pairs(Vec<(String, String)>),
}

impl Payload {
    /// Reads a payload that is written so.
    pub fn read(document: Document, payload: &[u8]) -> Result<Self, Reject> {
        if payload.len() > PAYLOAD_LENGTH_MAX {
            return Err(Reject::Payload("it is too long"));
        }
        let text = || std::str::from_utf8(payload).map_err(|_| Reject::Payload("it is not UTF-8"));
        Ok(match document {
            Document::Json => {
                Self::Json(serde_json::from_slice(payload).map_err(|_| Reject::Payload("it is not JSON"))?)
            }
            Document::Text => Self::Text(text()?.trim().to_owned()),
            Document::Pairs => {
                let lines = text()?.split(['\n', '\r']).flat_map(|line| line.split("<br>"));
                let pairs: Vec<(String, String)> = lines
                    .filter_map(|line| line.split_once('='))
                    .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
                    .collect();
                if pairs.is_empty() {
                    return Err(Reject::Payload("it holds no line KEY=value"));
                }
                Self::Pairs(pairs)
            }
        })
    }

    /// What stands at a path: a number in brackets of an array is a key like any other. None when nothing stands there, and
    /// for JSON's null: a key that a message lacks says nothing.
    #[must_use]
    pub fn at(&self, path: &[String]) -> Option<Raw> {
        match self {
            Self::Json(json) => {
                let found = path.iter().try_fold(json, |json, key| match json {
                    Json::Object(object) => object.get(key),
                    Json::Array(array) => array.get(key.parse::<usize>().ok()?),
                    _ => None,
                })?;
                match found {
                    Json::Null => None,
                    Json::Bool(flag) => Some(Raw::Flag(*flag)),
                    Json::Number(number) => Some(match number.as_i64() {
                        Some(integer) => Raw::Integer(integer.into()),
                        None => Raw::Float(number.as_f64().unwrap_or(f64::NAN)),
                    }),
                    Json::String(text) => Some(Raw::Word(text.clone())),
                    Json::Array(_) | Json::Object(_) => Some(Raw::Unreadable("not_a_value")),
                }
            }
            Self::Text(text) => path.is_empty().then(|| Raw::Word(text.clone())),
            Self::Pairs(pairs) => {
                let found = pairs.iter().find(|(key, _)| path.first() == Some(key));
                found.map(|(_, value)| Raw::Word(value.clone()))
            }
        }
    }
}
