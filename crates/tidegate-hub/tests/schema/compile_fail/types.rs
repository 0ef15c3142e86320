use tidegate_hub::schema::HubSchema;

enum Mode {
    Idle,
    Busy,
}

struct NoSchema {
    a: u8,
}

type Hidden = usize;

#[repr(C)]
#[derive(HubSchema)]
struct ByName<'a> {
    reference: &'a u8,
}

#[repr(C)]
#[derive(HubSchema)]
struct ByAdvice {
    a: bool,
    b: usize,
    c: isize,
    d: char,
    e: &'static u8,
    f: *const u8,
    g: u128,
    h: (u8, u8),
    i: [usize; 2],
    j: String,
    k: Vec<u8>,
    l: Option<u8>,
    m: fn(),
    n: Box<u8>,
}

#[repr(C)]
#[derive(HubSchema)]
struct ByTrait {
    a: Hidden,
    b: Mode,
    c: NoSchema,
    d: [Mode; 2],
    _pad0: [u8; 4],
}

fn main() {}
