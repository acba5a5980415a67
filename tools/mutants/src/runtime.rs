//! Which change is active in this process, and which were met. Written into the mutated crate; not part of the tool.
#![allow(missing_docs, missing_debug_implementations, clippy::all, reason = "generated")]

use std::{
    fs::File,
    io::Write,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

struct State {
    active: u32,
    met: Option<(File, Box<[AtomicU64]>)>,
}

fn state() -> &'static State {
    static STATE: OnceLock<State> = OnceLock::new();
    STATE.get_or_init(|| {
        let active = std::env::var("MUTANT").ok().and_then(|id| id.parse().ok()).unwrap_or(0);
        let met = std::env::var_os("MUTANTS_MET").map(|path| {
            let file = File::options().create(true).append(true).open(path).unwrap();
            (file, (0..1024).map(|_| AtomicU64::new(0)).collect())
        });
        State { active, met }
    })
}

/// Whether this one is active; notes that it could make a difference here.
fn active(id: u32, differs: bool) -> bool {
    let state = state();
    if let (Some((file, bits)), true) = (&state.met, differs) {
        let bit = 1 << (id % 64);
        if bits[id as usize / 64].fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            // At once: the process may be ended at any moment.
            let _ = (&*file).write_all(&id.to_le_bytes());
        }
    }
    state.active == id
}

pub fn is(id: u32) -> bool {
    active(id, true)
}

pub fn flip(id: u32, value: bool) -> bool {
    value ^ is(id)
}

/// A condition that is held true by `id` and false by the next.
pub fn force(id: u32, value: bool) -> bool {
    (active(id, !value) || value) && !active(id + 1, value)
}

/// `<` and its like: its boundary moved by `id`, itself negated by the next.
pub fn order<const OPERATOR: char, A: PartialOrd<B> + ?Sized, B: ?Sized>(id: u32, a: &A, b: &B) -> bool {
    // `l` and `g` are `<=` and `>=`.
    let (value, moved) = match OPERATOR {
        '<' => (a < b, a <= b),
        'l' => (a <= b, a < b),
        '>' => (a > b, a >= b),
        _ => (a >= b, a > b),
    };
    if active(id, value != moved) {
        return moved;
    }
    value ^ is(id + 1)
}

/// What arithmetic is changed on; on other types the compiler turns the change down.
pub trait Number: Copy {
    fn apply(operator: char, a: Self, b: Self) -> Self;
}

macro_rules! numbers {
    ($($type:ty)*) => {$(
        impl Number for $type {
            fn apply(operator: char, a: Self, b: Self) -> Self {
                match operator {
                    '+' => a + b,
                    '-' => a - b,
                    '*' => a * b,
                    '/' => a / b,
                    _ => a % b,
                }
            }
        }
    )*};
}
numbers! { u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64 }

impl Number for Duration {
    fn apply(operator: char, a: Self, b: Self) -> Self {
        match operator {
            '+' => a + b,
            _ => a - b,
        }
    }
}

/// Arithmetic with another operator by `id`, and with a third by the next.
pub fn arithmetic<const OPERATOR: char, T: Number>(id: u32, a: T, b: T) -> T {
    let (second, third) = match OPERATOR {
        '+' => ('-', '*'),
        '-' => ('+', '/'),
        '*' => ('+', '/'),
        '/' => ('%', '*'),
        _ => ('/', '+'),
    };
    let operator = if is(id) {
        second
    } else if is(id + 1) {
        third
    } else {
        OPERATOR
    };
    T::apply(operator, a, b)
}

pub fn arithmetic_in_place<const OPERATOR: char, T: Number>(id: u32, a: &mut T, b: T) {
    *a = arithmetic::<OPERATOR, T>(id, *a, b);
}
