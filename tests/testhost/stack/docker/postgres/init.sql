-- A marketplace: clients order from contractors, pay, and write to each other.
create table clients (
    id bigint generated always as identity primary key,
    email text not null unique,
    name text not null,
    preferences jsonb not null default '{}',
    created_at timestamptz not null default now()
);
create table contractors (
    id bigint generated always as identity primary key,
    name text not null,
    skills text[] not null,
    hourly_rate numeric(10, 2) not null,
    rating numeric
);
create type order_state as enum ('open', 'accepted', 'done', 'cancelled');
create table orders (
    id bigint generated always as identity primary key,
    client_id bigint not null references clients,
    contractor_id bigint references contractors,
    state order_state not null default 'open',
    what text not null,
    price numeric(12, 2) not null,
    created_at timestamptz not null default now()
);
create index on orders (client_id, created_at);
create table payments (
    id uuid primary key default gen_random_uuid(),
    order_id bigint not null references orders,
    amount numeric(12, 2) not null,
    paid_at timestamptz not null,
    receipt bytea
);
create table messages (
    id bigint generated always as identity primary key,
    order_id bigint not null references orders,
    body text not null,
    sent_at timestamptz not null
);

insert into clients (email, name, preferences, created_at)
select format('client%s@example.org', g), 'Client ' || g,
       jsonb_build_object('language', (array['en', 'fr', 'de'])[1 + g % 3], 'newsletter', g % 2 = 0),
       timestamptz '2026-01-01 00:00:00+00' + g * interval '3 hours'
from generate_series(1, 300) g;
insert into contractors (name, skills, hourly_rate, rating)
select 'Contractor ' || g, (array['plumbing', 'painting', 'wiring', 'roofing'])[1 : 1 + g % 4], 40 + g * 1.25,
       nullif(g % 6, 0) / 1.10
from generate_series(1, 60) g;
insert into orders (client_id, contractor_id, state, what, price, created_at)
select 1 + g % 300, nullif(1 + g % 61, 61), (enum_range(null::order_state))[1 + g % 4],
       'Order ' || g || repeat(' – détails', g % 5), 25 + (g * 7919 % 100000) / 100.0,
       timestamptz '2026-02-01 00:00:00+00' + g * interval '11 minutes'
from generate_series(1, 2000) g;
insert into payments (order_id, amount, paid_at, receipt)
select id, price, created_at + interval '2 days', sha256(what::bytea) from orders where state = 'done';
insert into messages (order_id, body, sent_at)
select o.id, 'Message ' || n || ' about ' || o.what, o.created_at + n * interval '5 minutes'
from orders o cross join generate_series(1, 3) n;
