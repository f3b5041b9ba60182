"""Families of tests of which the fast set runs some cases and the full set the others."""

from collections import Counter

import pytest

#: A family and how many of its cases there are for each that the fast set runs.
ONE_OF = {
    "tests/archive/test_archive.py::test_odd_rows": 3,
    "tests/archive/test_archive.py::test_odd_rows_within_an_error": 3,
    "tests/archive/test_archive.py::test_shapes_of_few_rows": 3,
    "tests/attacks/test_codecs.py::test_forged_settings_and_tensors_raise_nothing_but_a_format_error": 4,
    "tests/attacks/test_embzip.py::test_a_gadget_is_refused_by_its_name": 4,
    "tests/attacks/test_headers.py::test_refuses_a_sealed_header_with_wrong_types": 4,
    "tests/attacks/test_headers.py::test_refuses_sealed_settings_that_do_not_fit_the_tensors": 4,
    "tests/attacks/test_matrices.py::test_arrays_that_lie_are_refused": 4,
    "tests/attacks/test_rows.py::test_a_row_that_is_no_number_hides_no_other": 5,
    "tests/interop/test_embzip.py::test_every_number_of_bits_and_both_metrics": 4,
    "tests/large/test_sources.py::test_every_format_is_read_from_any_row_on": 3,
    "tests/test_bucketize.py::test_packed_counts_are_the_counts_packed": 4,
    "tests/test_capture.py::test_a_search_is_recorded": 4,
    "tests/test_capture.py::test_candidates_are_rescored_in_a_graph": 3,
    "tests/test_codec_laws.py::test_scores_are_those_of_the_decoded_rows": 3,
    "tests/test_embedding_bag.py::test_compiles_without_graph_breaks": 3,
    "tests/test_embedding_training.py::test_forward_derivatives_are_those_of_a_plain_look_up": 4,
    "tests/test_embedding_training.py::test_gradient_matches_a_plain_look_up": 4,
    "tests/test_encode_once.py::test_all_rows_at_once_are_the_rows_of_blocks": 3,
    "tests/test_encode_once.py::test_encodes_as_without_the_check": 4,
    "tests/test_encode_once.py::test_refuses_what_every_codec_refuses": 5,
    "tests/test_errors.py::test_a_tensor_that_is_not_of_floats_is_refused": 3,
    "tests/test_errors.py::test_what_is_neither_tensor_nor_array_is_refused": 3,
    "tests/test_faiss.py::test_an_index_in_a_wrapper_gives_the_rows_that_it_decodes": 3,
    "tests/test_faiss.py::test_ids_of_an_index_are_returned_or_refused": 3,
    "tests/test_faiss.py::test_scalar_codes_there_and_back": 3,
    "tests/test_faiss.py::test_search_is_index_pq_search": 3,
    "tests/test_faiss.py::test_the_same_codebook_gives_the_same_bytes": 3,
    "tests/test_faiss_lists.py::test_all_lists_find_what_the_index_without_lists_finds": 3,
    "tests/test_file_blocks.py::test_every_reader_finds_a_flipped_bit_in_every_block": 4,
    "tests/test_files.py::test_files_that_are_open_and_bytes_hold_what_a_path_does": 3,
    "tests/test_lloyd_max.py::test_blocks": 3,
    "tests/test_lloyd_max.py::test_few_rows_of_mixed_bits_decode_as_many_do": 4,
    "tests/test_loops.py::test_decode": 3,
    "tests/test_mixed.py::test_bits_that_fill_up_a_byte_are_not_counted": 4,
    "tests/test_one_pass_search.py::test_plain_torch_finds_the_same": 3,
    "tests/test_one_pass_search.py::test_the_same_answers_as_by_scans": 3,
    "tests/test_one_pass_topk.py::test_hamming": 3,
    "tests/test_one_pass_topk.py::test_samples_of_the_scan": 4,
    "tests/test_ops.py::test_compiles_without_a_graph_break": 3,
    "tests/test_ops.py::test_kernel_takes_strided_inputs": 3,
    "tests/test_ops.py::test_matches_its_reference_with_any_number_of_threads": 3,
    "tests/test_ops.py::test_opcheck": 3,
    "tests/test_prepared.py::test_the_same_as_a_first_search": 3,
    "tests/test_product_scan.py::test_both_scans_give_the_distances_of_faiss": 3,
    "tests/test_product_scan.py::test_the_ceiling_holds_at_any_magnitude": 4,
    "tests/test_rabitq.py::test_a_search_is_exact_over_the_estimates": 3,
    "tests/test_ranges.py::test_a_codec_loses_as_much_at_any_scale": 3,
    "tests/test_ranges.py::test_a_query_of_any_scale_has_finite_scores": 3,
    "tests/test_ranges.py::test_float16_rows_at_the_end_of_their_range_stay_finite": 4,
    "tests/test_rotations.py::test_faiss_finds_the_same_neighbours": 3,
    "tests/test_search.py::test_a_cuda_graph_can_record_a_search": 4,
    "tests/test_search.py::test_masked_search_finds_the_best_of_the_allowed_rows": 4,
    "tests/test_search.py::test_no_key_is_above_its_ceiling": 3,
    "tests/test_search_cost.py::test_candidates_are_gathered_for_a_few_queries_at_a_time": 4,
    "tests/test_search_cost.py::test_waits_do_not_grow_with_the_chunks": 4,
    "tests/test_sentence_transformers.py::test_makes_the_same_bytes_on_edge_cases": 4,
    "tests/test_smallfry.py::test_a_forged_array_raises_nothing_but_a_format_error": 4,
    "tests/test_smallfry.py::test_reads_a_folder_of_one_part": 4,
    "tests/test_words.py::test_finds_any_words_in_every_form": 3,
    "tests/test_words_folder.py::test_a_trie_that_is_forged_ends_no_process_and_holds_none": 3,
    "tests/test_words_folder.py::test_interrupt_at_any_step_leaves_a_complete_folder": 3,
    "tests/test_words_text.py::test_reads_every_line_format": 5,
    "tests/test_words_text.py::test_refuses_invalid_files_and_names_the_line": 4,
}


def mark(items: list[pytest.Item]) -> None:
    """Mark the cases that only the full set runs. The first case of each family is not among them."""
    seen: Counter[str] = Counter()
    for item in items:
        family = item.nodeid.partition("[")[0]
        if family in ONE_OF:
            if seen[family] % ONE_OF[family]:
                item.add_marker(pytest.mark.full)
            seen[family] += 1
