//! A number of ranks as a recipe writes it: a number, or as many as a launcher has started.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The word for as many ranks as there are.
const AUTO: &str = "auto";

/// How many ranks share something out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RankCount {
    /// As many as a launcher has started; one without a launcher.
    #[default]
    Auto,
    /// So many.
    Exactly(u64),
}

impl Serialize for RankCount {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => out.serialize_str(AUTO),
            Self::Exactly(count) => out.serialize_u64(*count),
        }
    }
}

impl<'de> Deserialize<'de> for RankCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = RankCount;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a number of ranks or `auto`")
            }

            fn visit_i64<E: serde::de::Error>(self, count: i64) -> Result<RankCount, E> {
                u64::try_from(count)
                    .map(RankCount::Exactly)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(count), &self))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RankCount, E> {
                if text == AUTO {
                    Ok(RankCount::Auto)
                } else {
                    Err(E::invalid_value(serde::de::Unexpected::Str(text), &self))
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
