//! Objects that would make a safety check take for ever.
