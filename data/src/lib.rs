//! From files to micro-batches: sources, formats, templates, tokens, masks, packs and order.

pub mod source;
