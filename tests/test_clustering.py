"""k-means and the selectors on embeddings, against plain loops that share no code with them."""

import math
from importlib import import_module

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from al_lightning.acquisition import cluster_margin, clustering, kmeans, probcover, typiclust
from al_lightning.acquisition.clustering import fit_centres, lloyd, round_robin, spread_rows
from al_lightning.acquisition.probcover import pure_radius
from al_lightning.acquisition.typiclust import mean_neighbour_distance

# In the package these names are functions; constants to shrink are in the modules.
PROBCOVER, TYPICLUST = (
    import_module(f"al_lightning.acquisition.{name}") for name in ("probcover", "typiclust")
)

few = settings(max_examples=40, derandomize=True)
DTYPES = [(torch.float64, 1e-9), (torch.float32, 1e-5)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def points(num, D, seed=0, dtype=torch.float64):
    return torch.randn(num, D, generator=seeded(seed), dtype=dtype)


def blobs(sizes, seed=0):
    """One tight heap for each size, far from all others, in order; and which heap a row is of."""
    heaps = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return points(len(heaps), 3, seed) * 0.1 + 100 * points(len(sizes), 3, 7)[heaps], heaps.tolist()


def clusters_by_definition(rows, centres):
    return [min(range(len(centres)), key=lambda g: math.dist(row, centres[g])) for row in rows]


# --- clustering


def lloyd_by_definition(rows, centres, iterations):
    for _ in range(iterations):
        clusters = clusters_by_definition(rows, centres)
        for g in range(len(centres)):
            own = [row for row, cluster in zip(rows, clusters) if cluster == g]
            if own:
                centres[g] = [sum(column) / len(own) for column in zip(*own)]
    return centres


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@few
@given(S=st.integers(1, 30), G=st.integers(1, 6), D=st.integers(1, 4), seed=st.integers(0, 99))
def test_lloyd_agrees_with_plain_loops(dtype, tolerance, S, G, D, seed):
    rows, centres = points(S, D, seed, dtype), points(G, D, seed + 1, dtype)
    expected = lloyd_by_definition(rows.tolist(), centres.tolist(), clustering.MAX_ITERATIONS)
    found = lloyd(rows, centres)
    assert found.dtype == torch.float64
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def test_a_centre_without_rows_stays():
    far = torch.tensor([[0.0], [9.0]])
    assert lloyd(torch.tensor([[-1.0], [2.0]]), far).tolist() == [[0.5], [9.0]]


def test_first_centres_are_drawn_by_squared_distance():
    rows, counts = torch.tensor([[0.0], [1.0], [3.0]]), {}
    for seed in range(3000):
        pair = tuple(spread_rows(rows, 2, generator=seeded(seed))[:, 0].tolist())
        counts[pair] = counts.get(pair, 0) + 1
    # After 0 the others weigh 1 and 9, after 1 they weigh 1 and 4, after 3 they weigh 9 and 4.
    chances = {(0, 1): 0.1, (0, 3): 0.9, (1, 0): 0.2, (1, 3): 0.8, (3, 0): 9 / 13, (3, 1): 4 / 13}
    assert set(counts) == set(chances)
    for pair, chance in chances.items():
        spread = (3000 * chance / 3 * (1 - chance / 3)) ** 0.5
        assert abs(counts[pair] - 3000 * chance / 3) < 5 * spread


def test_first_centres_are_distinct_and_no_more_than_there_are():
    rows = points(4, 3).repeat(5, 1) + 1000  # an offset must not make equal rows differ
    for dtype in (torch.float64, torch.float32):
        found = spread_rows(rows.to(dtype), 10, generator=seeded())
        assert sorted(found.tolist()) == sorted(rows[:4].to(dtype).tolist())


def test_centres_come_from_a_sample_of_all_tables(monkeypatch):
    rows, heaps = blobs([300, 200, 100])
    means = [rows[torch.tensor(heaps) == heap].mean(0) for heap in range(3)]
    monkeypatch.setattr(clustering, "SAMPLE_ROWS", 100)
    monkeypatch.setattr(clustering, "SEEDING_ROWS", 50)
    found = fit_centres([rows[:450], rows[:0], rows[450:]], 3, generator=seeded())
    torch.testing.assert_close(
        torch.stack(sorted(found, key=lambda row: row[0])),
        torch.stack(sorted(means, key=lambda row: row[0])),
        atol=0.1,  # a mean of at least 10 rows that scatter by 0.1
        rtol=0,
    )
    sample = clustering.sample_rows([rows[:450], rows[450:]], 100, generator=seeded())
    assert len(sample.unique(dim=0)) == 100
    assert {tuple(row) for row in sample.tolist()} <= {tuple(row) for row in rows.tolist()}


def round_robin_by_definition(groups, turns, num, first_round):
    queues = {g: [i for i, group in enumerate(groups) if group == g] for g in turns}
    chosen, now = [], 0
    while len(chosen) < num:
        for g in turns:
            if now >= first_round[g] and queues[g]:
                chosen.append(queues[g].pop(0))
        now += 1
    return chosen[:num]


@few
@given(data=st.data(), N=st.integers(1, 30), G=st.integers(1, 6))
def test_round_robin_agrees_with_plain_loops(data, N, G):
    groups = data.draw(st.lists(st.integers(0, G - 1), min_size=N, max_size=N))
    turns = data.draw(st.permutations(range(G)))
    first = data.draw(st.lists(st.integers(0, 4), min_size=G, max_size=G))
    num = data.draw(st.integers(1, N))
    found = round_robin(
        torch.tensor(groups), torch.tensor(turns), num, first_round_G=torch.tensor(first)
    )
    assert found.tolist() == round_robin_by_definition(groups, turns, num, first)
    at_once = round_robin(torch.tensor(groups), torch.tensor(turns), num)
    assert at_once.tolist() == round_robin_by_definition(groups, turns, num, [0] * G)


# --- kmeans


@few
@given(N=st.integers(1, 40), num=st.integers(1, 12), seed=st.integers(0, 99))
def test_kmeans_takes_the_nearest_to_each_centre_largest_cluster_first(N, num, seed):
    pool, num = points(N, 3, seed), min(num, N)
    centres = fit_centres([pool], num, generator=seeded(seed)).tolist()
    clusters = clusters_by_definition(pool.tolist(), centres)
    turns = sorted(range(len(centres)), key=lambda g: (-clusters.count(g), g))
    nearest_first = sorted(
        range(N), key=lambda i: math.dist(pool[i].tolist(), centres[clusters[i]])
    )
    places = round_robin_by_definition(
        [clusters[i] for i in nearest_first], turns, num, [0] * len(centres)
    )
    expected = [nearest_first[place] for place in places]
    assert kmeans(pool, pool[:0], num, seeded(seed)).tolist() == expected


def test_kmeans_asks_for_one_of_each_heap():
    pool, heaps = blobs([5, 30, 12])
    for seed in range(5):
        chosen = kmeans(pool, pool[:3], 3, seeded(seed)).tolist()
        assert [heaps[i] for i in chosen] == [1, 2, 0]


# --- typiclust


def mean_distance_by_definition(row, others, num_neighbours):
    nearest = sorted(math.dist(row, other) for other in others)[:num_neighbours]
    return sum(nearest) / max(1, len(nearest))


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@few
@given(P=st.integers(1, 30), L=st.integers(0, 10), seed=st.integers(0, 99), bound=st.booleans())
def test_mean_neighbour_distance_agrees_with_plain_loops(dtype, tolerance, P, L, seed, bound):
    pool, labeled = points(50, 3, seed, dtype), points(20, 3, seed + 1, dtype)
    members = torch.randperm(50, generator=seeded(seed))[:P]
    labeled_members = torch.randperm(20, generator=seeded(seed))[:L]
    rows = [*pool[members].tolist(), *labeled[labeled_members].tolist()]
    references = range(P + L)
    if bound and P + L > 6:
        sample = clustering.sample_without_replacement(P + L, 6, generator=seeded(seed))
        references = sample.tolist()
    found = mean_neighbour_distance(
        pool,
        labeled,
        members,
        labeled_members,
        max_references=6 if bound else 99,
        generator=seeded(seed),
    )
    num_neighbours = min(20, len(references) - 1)
    expected = [
        mean_distance_by_definition(
            rows[i], [rows[j] for j in references if j != i], num_neighbours
        )
        for i in range(P)
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=dtype), atol=tolerance, rtol=0)


@pytest.mark.parametrize(("distances", "max_references"), [(0, 100), (400 * 150, 150)])
def test_typiclust_bounds_the_neighbours_of_a_huge_cluster(monkeypatch, distances, max_references):
    heap, none = points(400, 2), points(0, 2)
    monkeypatch.setattr(TYPICLUST, "MIN_REFERENCES", 100)
    monkeypatch.setattr(TYPICLUST, "NUM_DISTANCES", distances)
    generator = seeded()
    fit_centres([heap, none], 1, generator=generator)  # draws before the sample is drawn
    means = mean_neighbour_distance(
        heap,
        none,
        torch.arange(400),
        torch.arange(0),
        max_references=max_references,
        generator=generator,
    )
    found = typiclust(heap, none, 3, seeded(), max_clusters=1)
    assert torch.equal(found, means.argsort()[:3])


def typiclust_by_definition(pool, labeled, num, centres):
    clusters, of_labeled = (clusters_by_definition(rows, centres) for rows in (pool, labeled))
    labels = [of_labeled.count(g) for g in range(len(centres))]
    sizes = [clusters.count(g) + labels[g] for g in range(len(centres))]
    typical = {}
    for i, g in enumerate(clusters):
        others = [row for j, row in enumerate(pool) if clusters[j] == g and j != i]
        others += [row for row, cluster in zip(labeled, of_labeled) if cluster == g]
        typical[i] = -mean_distance_by_definition(pool[i], others, 20)
    taken, visited = [], []
    while len(taken) < num:
        left = [i for i in range(len(pool)) if i not in taken]
        g = min({clusters[i] for i in left}, key=lambda g: (sizes[g] < 5, labels[g], -sizes[g], g))
        taken.append(max((i for i in left if clusters[i] == g), key=lambda i: (typical[i], -i)))
        labels[g] += 1
        visited.append(g)
    return taken, visited, typical


@few
@given(
    N=st.integers(1, 50),
    M=st.integers(0, 12),
    num=st.integers(1, 12),
    max_clusters=st.integers(1, 10),
    seed=st.integers(0, 99),
)
def test_typiclust_agrees_with_its_definition(N, M, num, max_clusters, seed):
    pool, labeled, num = points(N, 2, seed), points(M, 2, seed + 1), min(num, N)
    centres = fit_centres([pool, labeled], min(M + num, max_clusters), generator=seeded(seed))
    expected, visited, typical = typiclust_by_definition(
        pool.tolist(), labeled.tolist(), num, centres.tolist()
    )
    found = typiclust(pool, labeled, num, seeded(seed), max_clusters=max_clusters).tolist()
    clusters = clusters_by_definition(pool.tolist(), centres.tolist())
    assert [clusters[i] for i in found] == visited
    assert len(set(found)) == num
    # Not the rows themselves: each other's only neighbours are equally typical but for rounding.
    assert [typical[i] for i in found] == pytest.approx([typical[i] for i in expected], abs=1e-6)


def test_typiclust_takes_the_middle_of_the_largest_heaps_without_a_label():
    pool, heaps = blobs([20, 40, 10, 30])
    labeled = pool[25:27]  # of the heap with 40
    for seed in range(5):
        chosen = typiclust(pool, labeled, 2, seeded(seed), max_clusters=4).tolist()
        assert [heaps[i] for i in chosen] == [3, 0]
    row = chosen[0]
    heap = pool[torch.tensor(heaps) == 3]
    distances = torch.cdist(heap, heap).sort(1).values[:, 1:21].mean(1)
    assert torch.equal(pool[row], heap[distances.argmin()])


# --- probcover


def probcover_by_definition(pool, labeled, num, delta):
    """What is taken until all is covered, which may be fewer than num."""
    near = [[math.dist(a, b) < delta for b in pool] for a in pool]
    covered = {
        i for i, row in enumerate(pool) if any(math.dist(row, other) < delta for other in labeled)
    }
    taken = []
    while len(taken) < num and len(covered) < len(pool):
        degrees = [
            sum(near[i][j] for j in range(len(pool)) if j not in covered) for i in range(len(pool))
        ]
        best = max((i for i in range(len(pool)) if i not in taken), key=lambda i: (degrees[i], -i))
        taken.append(best)
        covered |= {j for j in range(len(pool)) if near[best][j]}
    return taken


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@few
@given(N=st.integers(1, 40), M=st.integers(0, 6), num=st.integers(1, 45), seed=st.integers(0, 99))
def test_probcover_agrees_with_its_definition(dtype, N, M, num, seed):
    # Whole numbers: many equal degrees, and with some radii many rows at the very edge of a ball.
    draws = torch.randint(7, (N + M, 2), generator=seeded(seed)).to(dtype)
    pool, labeled, delta = draws[:N], draws[N:], (0.5, 1.2, 2.1, 1.0, 2.0, 5.0)[seed % 6]
    expected = probcover_by_definition(pool.tolist(), labeled.tolist(), min(num, N), delta)
    found = probcover(pool, labeled, num, seeded(seed), delta=delta).tolist()
    assert found[: len(expected)] == expected
    assert len(set(found)) == len(found) == min(num, N)


def test_probcover_fills_at_random_once_all_is_covered():
    pool = torch.zeros(50, 2)
    drawn = [probcover(pool, pool[:1], 5, seeded(s), delta=1.0).tolist() for s in (0, 1)]
    assert drawn[0] != drawn[1]
    assert all(len(set(rows)) == 5 for rows in drawn)


@few
@given(N=st.integers(2, 60), M=st.integers(0, 20), C=st.integers(2, 5), seed=st.integers(0, 99))
def test_pure_radius_is_the_largest_with_pure_balls(N, M, C, seed):
    pool, labeled = points(N, 2, seed), points(M, 2, seed + 1)
    centres = fit_centres([pool, labeled], C, generator=seeded(seed)).tolist()
    rows = [*pool.tolist(), *labeled.tolist()]
    clusters = clusters_by_definition(rows, centres)

    def purity(radius):
        pure = [
            all(
                clusters[i] == clusters[j]
                for j in range(len(rows))
                if math.dist(a, rows[j]) < radius
            )
            for i, a in enumerate(rows)
        ]
        return sum(pure) / len(rows)

    radius = pure_radius((pool, labeled), C, generator=seeded(seed))
    assert purity(radius * (1 - 1e-9)) >= 0.95
    assert purity(radius * (1 + 1e-9)) < 0.95


def test_the_estimated_radius_finds_the_heaps():
    pool, heaps = blobs([40, 20, 30, 10])
    chosen = probcover(pool, pool[:1], 3, seeded(), num_classes=4).tolist()
    assert [heaps[i] for i in chosen] == [2, 1, 3]  # the first heap has a label


# --- cluster_margin


@few
@given(
    N=st.integers(1, 40),
    num=st.integers(1, 12),
    factor=st.sampled_from([1, 1.25, 3, 10]),
    seed=st.integers(0, 99),
)
def test_cluster_margin_agrees_with_its_definition(N, num, factor, seed):
    pool, probs, num = points(N, 3, seed), points(N, 4, seed + 1).softmax(-1), min(num, N)
    leads = [sorted(p)[-1] - sorted(p)[-2] for p in probs.tolist()]
    candidates = sorted(range(N), key=lambda i: leads[i])[: math.ceil(factor * num)]
    centres = fit_centres([pool], num, generator=seeded(seed)).tolist()
    clusters = clusters_by_definition(pool[candidates].tolist(), centres)
    turns = sorted(range(len(centres)), key=lambda g: (clusters.count(g), g))
    places = round_robin_by_definition(clusters, turns, num, [0] * len(centres))
    found = cluster_margin(probs, pool, num, seeded(seed), candidate_factor=factor)
    assert found.tolist() == [candidates[place] for place in places]


def test_cluster_margin_starts_with_the_smallest_heap():
    pool, heaps = blobs([20, 5, 10])
    probs = torch.full((35, 2), 0.5)
    chosen = cluster_margin(probs, pool, 3, seeded(), candidate_factor=12).tolist()
    assert [heaps[i] for i in chosen] == [1, 2, 0]
    certain = torch.tensor([[1.0, 0.0]]).repeat(35, 1)
    certain[[3, 21]] = 0.5
    assert set(cluster_margin(certain, pool, 2, seeded(), candidate_factor=1).tolist()) == {3, 21}


# --- what all four have in common


def cluster_margin_by_embeddings(embeddings, labeled, num, generator):
    return cluster_margin(embeddings[:, :3].softmax(-1), embeddings, num, generator)


SELECTORS = {
    "kmeans": kmeans,
    "typiclust": typiclust,
    "probcover": probcover,
    "cluster_margin": cluster_margin_by_embeddings,
}
POOLS = {
    "random": points(60, 4),
    "float32": points(60, 4, dtype=torch.float32) + 100,
    "half": points(60, 4).bfloat16(),
    "few_distinct": points(3, 4).repeat(20, 1),
    "all_the_same": points(1, 4).repeat(60, 1),
    "zero": torch.zeros(60, 4),
    "one_row": points(1, 4),
}


@pytest.mark.parametrize("name", SELECTORS)
class TestSelectors:
    @pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
    @pytest.mark.parametrize("num", [1, 7, 59, 500])
    def test_positions_are_distinct_and_in_range(self, name, pool, num):
        for labeled in (pool[:0], pool[:5]):
            found = SELECTORS[name](pool, labeled, num, seeded())
            assert found.dtype == torch.int64
            assert len(found) == len(set(found.tolist())) == min(num, len(pool))
            assert set(found.tolist()) <= set(range(len(pool)))

    def test_the_generator_decides_alone_and_nothing_is_modified(self, name):
        pool, labeled = points(60, 4), points(5, 4, 1)
        torch.manual_seed(1)
        first = SELECTORS[name](pool, labeled, 10, seeded(3))
        torch.manual_seed(2)
        state = torch.random.get_rng_state()
        assert torch.equal(SELECTORS[name](pool, labeled, 10, seeded(3)), first)
        assert torch.equal(torch.random.get_rng_state(), state)
        assert torch.equal(pool, points(60, 4))
        assert torch.equal(labeled, points(5, 4, 1))

    def test_chunks_do_not_show(self, name, monkeypatch):
        pool, labeled = points(60, 4), points(5, 4, 1)
        whole = SELECTORS[name](pool, labeled, 10, seeded())
        monkeypatch.setattr(TYPICLUST, "CHUNK_ELEMENTS", 28)
        monkeypatch.setattr(PROBCOVER, "BLOCK_ROWS", 7)
        assert torch.equal(SELECTORS[name](pool, labeled, 10, seeded()), whole)

    def test_bad_input_is_refused(self, name):
        pool, select = points(6, 4), SELECTORS[name]
        with pytest.raises(ValueError, match="num must be at least 1, got 0"):
            select(pool, pool[:0], 0, seeded())
        with pytest.raises(ValueError, match="must hold at least one row"):
            select(pool[:0], pool[:0], 1, seeded())
        with pytest.raises(ValueError, match=r"must be finite.*first at \[2\]"):
            select(pool.index_fill(0, torch.tensor([2]), math.nan), pool[:0], 1, seeded())
        with pytest.raises(ValueError, match=r"must be \(N, D\), got \(6, 4, 1\)"):
            select(pool[..., None], pool[:0], 1, seeded())
        if name != "cluster_margin":
            with pytest.raises(ValueError, match="labeled must match"):
                select(pool, pool[:, :3], 1, seeded())


def test_options_are_checked():
    pool = points(6, 3)
    with pytest.raises(ValueError, match="max_clusters must be at least 1, got 0"):
        typiclust(pool, pool[:0], 1, seeded(), max_clusters=0)
    with pytest.raises(ValueError, match="delta must be above 0, got nan"):
        probcover(pool, pool[:0], 1, seeded(), delta=math.nan)
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1; or pass delta"):
        probcover(pool, pool[:0], 1, seeded(), num_classes=1)
    probs = torch.full((6, 2), 0.5)
    with pytest.raises(ValueError, match="candidate_factor must be at least 1.*got 0.5"):
        cluster_margin(probs, pool, 1, seeded(), candidate_factor=0.5)
    with pytest.raises(ValueError, match="got lengths probs 5, embeddings 6"):
        cluster_margin(probs[:5], pool, 1, seeded())
