use tidegate_hub::schema::HubSchema;

#[repr(C, align(128))]
#[derive(HubSchema)]
struct Aligned {
    a: u8,
    _pad0: [u8; 127],
}

#[repr(C)]
#[derive(HubSchema)]
struct Grows {
    a: u32,
    #[hub(optional)]
    b: u32,
}

#[repr(C)]
#[derive(HubSchema)]
struct Nests {
    inner: Grows,
}

macro_rules! nest {
    ($outer:ident $inner:ident $($rest:ident)*) => {
        #[repr(C)]
        #[derive(HubSchema)]
        struct $outer {
            inner: $inner,
        }
        nest!($inner $($rest)*);
    };
    ($inner:ident) => {
        #[repr(C)]
        #[derive(HubSchema)]
        struct $inner {
            a: u8,
        }
    };
}

nest!(D9 D8 D7 D6 D5 D4 D3 D2 D1);

fn main() {}
