//! Values and foreign text for people's eyes, the same in a terminal and on a page.

pub mod cell;
pub mod escape;
