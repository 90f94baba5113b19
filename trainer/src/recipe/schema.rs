//! The tree of keys a type accepts, read from its own `Deserialize`, so that no second list can drift.
//!
//! A probing deserializer walks to one path and records what the type asks for there: a struct with its
//! field names, an enum with its words, a list, or a plain value.

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor, value,
};
use std::cell::Cell;

/// What a key may hold.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// A table with these keys.
    Table(Vec<(&'static str, Node)>),
    /// A list of one kind.
    List(Box<Node>),
    /// A table with free keys.
    Map,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Bool,
    /// A whole number that is not negative.
    Whole,
    /// Any number.
    Number,
    /// A string.
    Text,
    /// Something the type sorts out itself.
    Free,
}

impl Node {
    /// Reads the tree of `T`.
    pub(super) fn of<T: DeserializeOwned>() -> Node {
        explore::<T>(&mut Vec::new())
    }

    /// Returns the node below `name`: a table's key, or any index of a list.
    pub(super) fn child(&self, name: &str) -> Option<&Node> {
        match self {
            Node::Table(keys) => keys.iter().find(|(key, _)| *key == name).map(|(_, node)| node),
            Node::List(item) => name.parse::<usize>().ok().map(|_| item.as_ref()),
            _ => None,
        }
    }

    /// Returns the names of the keys of a table.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'static str> {
        let keys: &[(&'static str, Node)] = if let Node::Table(keys) = self { keys } else { &[] };
        keys.iter().map(|(key, _)| *key)
    }

    /// Returns every key as it is written with dots; the tables of a list stand under the list's own name.
    pub(super) fn dotted(&self) -> Vec<String> {
        match self {
            Node::Table(keys) => {
                let below = |(key, node): &(&'static str, Node)| {
                    let inner = node.dotted();
                    if inner.is_empty() {
                        vec![(*key).to_owned()]
                    } else {
                        inner.iter().map(|rest| format!("{key}.{rest}")).collect()
                    }
                };
                keys.iter().flat_map(below).collect()
            }
            Node::List(item) => item.dotted(),
            _ => Vec::new(),
        }
    }
}

#[derive(Clone, Copy)]
enum Step {
    Field(&'static str),
    Item,
}

enum Found {
    Struct(&'static [&'static str]),
    Seq,
    Plain(Node),
}

fn explore<T: DeserializeOwned>(path: &mut Vec<Step>) -> Node {
    let found = Cell::new(None);
    // The probe always ends in an error; what it met on the way is the answer.
    let _ = T::deserialize(Probe { path, found: &found });
    match found.into_inner() {
        Some(Found::Struct(fields)) => Node::Table(
            fields
                .iter()
                .map(|field| {
                    path.push(Step::Field(field));
                    let node = explore::<T>(path);
                    path.pop();
                    (*field, node)
                })
                .collect(),
        ),
        Some(Found::Seq) => {
            path.push(Step::Item);
            let node = explore::<T>(path);
            path.pop();
            Node::List(Box::new(node))
        }
        Some(Found::Plain(node)) => node,
        None => Node::Free,
    }
}

struct Probe<'a> {
    path: &'a [Step],
    found: &'a Cell<Option<Found>>,
}

impl Probe<'_> {
    fn stop<V>(&self, found: Found) -> Result<V, value::Error> {
        if self.path.is_empty() {
            self.found.set(Some(found));
        }
        Err(value::Error::custom("probe ends here"))
    }
}

macro_rules! plain {
    ($($method:ident => $node:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, value::Error> {
            self.stop(Found::Plain($node))
        })*
    };
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = value::Error;

    plain! {
        deserialize_any => Node::Free;
        deserialize_bool => Node::Bool;
        deserialize_u64 => Node::Whole;
        deserialize_f64 => Node::Number;
        deserialize_str => Node::Text;
        deserialize_string => Node::Text;
        deserialize_map => Node::Map;
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, value::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, value::Error> {
        match self.path.split_first() {
            Some((Step::Field(field), rest)) => {
                visitor.visit_map(One { field: Some(field), path: rest, found: self.found })
            }
            _ => self.stop(Found::Struct(fields)),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, value::Error> {
        match self.path.split_first() {
            Some((Step::Item, rest)) => visitor.visit_seq(One { field: None, path: rest, found: self.found }),
            _ => self.stop(Found::Seq),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, value::Error> {
        self.stop(Found::Plain(Node::Choice(variants)))
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 char bytes byte_buf unit unit_struct newtype_struct tuple
        tuple_struct identifier ignored_any
    }
}

struct One<'a> {
    field: Option<&'static str>,
    path: &'a [Step],
    found: &'a Cell<Option<Found>>,
}

impl<'de> MapAccess<'de> for One<'_> {
    type Error = value::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, value::Error> {
        self.field.take().map(|field| seed.deserialize(value::StrDeserializer::new(field))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, value::Error> {
        seed.deserialize(Probe { path: self.path, found: self.found })
    }
}

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = value::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, value::Error> {
        seed.deserialize(Probe { path: self.path, found: self.found }).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::RecipeFile;
    use super::*;

    #[test]
    fn reads_the_tree_from_serde() {
        let root = Node::of::<RecipeFile>();
        let at = |path: &[&str]| {
            path.iter().try_fold(&root, |node, name| node.child(name)).cloned().unwrap_or(Node::Free)
        };
        assert_eq!(at(&["version"]), Node::Whole);
        assert_eq!(at(&["model", "quantize"]), Node::Choice(&["none", "nf4", "int8"]));
        assert_eq!(at(&["model", "sha256"]), Node::Map);
        assert_eq!(at(&["adapter", "targets"]), Node::Free);
        assert_eq!(at(&["adapter", "exclude"]), Node::List(Box::new(Node::Text)));
        assert_eq!(at(&["data", "train", "3", "weight"]), Node::Number);
        assert_eq!(at(&["train", "batch_size"]), Node::Whole);
        assert!(root.child("model").expect("there").child("nothing").is_none());
    }

    #[test]
    fn lists_dotted_keys() {
        let keys = Node::of::<RecipeFile>().dotted();
        for key in ["version", "adapter.rank", "data.train.source", "data.eval.format", "log.sample"] {
            assert!(keys.iter().any(|known| known == key), "{key} is missing in {keys:?}");
        }
        assert!(!keys.contains(&"model".to_owned()));
    }
}
