use tidegate_hub::schema::HubSchema;

#[repr(C)]
#[derive(HubSchema)]
struct Between {
    a: u32,
    b: u64,
}

#[repr(C)]
#[derive(HubSchema)]
struct AtTheEnd {
    a: u64,
    b: u32,
}

#[repr(C)]
#[derive(HubSchema)]
struct Second {
    a: u8,
    _pad0: [u8; 1],
    b: u16,
    c: u64,
}

#[repr(C)]
#[derive(HubSchema)]
struct NoBytes {
    a: u8,
    b: [u8; 0],
}

fn main() {}
