//! From files to micro-batches: sources, formats, templates, tokens, masks, packs and order.
//!
//! ```text
//! RecordFile -> Record -> Example -> rendered text and spans -> Sample -> unit (sample or pack) -> MicroBatch
//!   format       format    format     template, mask             dataset  order, pack             stream
//! ```

pub mod batch;
pub mod cursor;
pub mod dataset;
pub mod error;
pub mod format;
pub mod mask;
mod order;
mod pack;
pub mod source;
pub mod stream;
pub mod template;
pub mod tokenizer;

pub use batch::{IGNORE, MicroBatch, Sample};
pub use cursor::Cursor;
pub use dataset::{Dataset, EvalSource, LoadOptions, OnLong, SourceSpec, Split, Statistics, TokenView};
pub use error::{Error, Place, Result};
pub use format::{Example, Format, Record, RecordFile};
pub use mask::{Rendered, TrainOn};
pub use stream::{Stream, StreamConfig};
pub use template::{ChatTemplate, Date, Message};
pub use tokenizer::{Encoded, StreamDecoder, Tokenizer, TokenizerParts};
