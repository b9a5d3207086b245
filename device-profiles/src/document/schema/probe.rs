//! What a type looks like in JSON, found by asking it to deserialize and listening to what it asks for.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json, json};

/// The schema of `T`. Where a type accepts anything, or asks in a way that is not known here, any value is allowed.
pub(super) fn shape<T: DeserializeOwned>() -> Json {
    let mut json = json!({});
    let _refused: Result<T, Stop> = T::deserialize(Probe { json: &mut json });
    json
}

/// Listens; never gives a value, unless one of several fields must be passed to reach the next.
struct Probe<'a> {
    json: &'a mut Json,
}

#[derive(Debug)]
struct Stop;

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("only asked")
    }
}
impl std::error::Error for Stop {}
impl serde::de::Error for Stop {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

macro_rules! scalars {
    ($($method:ident => $json:expr),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
            *self.json = $json;
            Err(Stop)
        })*
    };
}

fn integer(low: i64, high: u64) -> Json {
    json!({ "type": "integer", "minimum": low, "maximum": high })
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Stop;

    scalars! {
        deserialize_any => json!({}),
        deserialize_ignored_any => json!({}),
        deserialize_bool => json!({ "type": "boolean" }),
        deserialize_i8 => integer(i64::from(i8::MIN), 127),
        deserialize_i16 => integer(i64::from(i16::MIN), 32_767),
        deserialize_i32 => integer(i64::from(i32::MIN), 2_147_483_647),
        deserialize_i64 => json!({ "type": "integer" }),
        deserialize_u8 => integer(0, u64::from(u8::MAX)),
        deserialize_u16 => integer(0, u64::from(u16::MAX)),
        deserialize_u32 => integer(0, u64::from(u32::MAX)),
        deserialize_u64 => json!({ "type": "integer", "minimum": 0 }),
        deserialize_f32 => json!({ "type": "number" }),
        deserialize_f64 => json!({ "type": "number" }),
        deserialize_char => json!({ "type": "string", "minLength": 1, "maxLength": 1 }),
        deserialize_str => json!({ "type": "string" }),
        deserialize_string => json!({ "type": "string" }),
        deserialize_bytes => json!({ "type": "string" }),
        deserialize_byte_buf => json!({ "type": "string" }),
        deserialize_unit => json!({ "type": "null" }),
        deserialize_identifier => json!({ "type": "string" }),
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_some(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let mut items = json!({});
        let _refused = visitor.visit_seq(One(&mut items));
        *self.json = json!({ "type": "array", "items": items });
        Err(Stop)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let mut values = json!({});
        let _refused = visitor.visit_map(AnyKey(&mut values));
        *self.json = json!({ "type": "object", "additionalProperties": values });
        Err(Stop)
    }

    /// Each field is asked for alone, so that one that refuses does not hide the next.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        // A visitor is spent by one visit, so only the first field's type can be heard; fields of a struct in a value are
        // texts in both languages throughout.
        let mut first = json!({});
        let _refused = visitor.visit_map(OneField { key: fields.first().copied(), json: &mut first });
        let properties: Map<String, Json> = fields.iter().map(|field| ((*field).to_owned(), first.clone())).collect();
        *self.json =
            json!({ "type": "object", "properties": properties, "required": fields, "additionalProperties": false });
        Err(Stop)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Stop> {
        *self.json = json!({ "enum": variants });
        Err(Stop)
    }
}

struct One<'a>(&'a mut Json);

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = Stop;
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Stop> {
        seed.deserialize(Probe { json: self.0 }).map(Some)
    }
}

struct AnyKey<'a>(&'a mut Json);

impl<'de> MapAccess<'de> for AnyKey<'_> {
    type Error = Stop;
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        seed.deserialize("".into_deserializer()).map(Some)
    }
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        seed.deserialize(Probe { json: self.0 })
    }
}

struct OneField<'a> {
    key: Option<&'static str>,
    json: &'a mut Json,
}

impl<'de> MapAccess<'de> for OneField<'_> {
    type Error = Stop;
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        self.key.take().map(|key| seed.deserialize(key.into_deserializer())).transpose()
    }
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        seed.deserialize(Probe { json: self.json })
    }
}
