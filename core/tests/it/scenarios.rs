//! One accident each, told as a story.
