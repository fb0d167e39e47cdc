import { assertEquals } from "@std/assert";
import { HvVpAssistPage } from "../../lib/layout/hyperv/assist_page.ts";
import { hcl_run } from "../../lib/layout/hyperv/hcl_run.ts";
import { HvMessage, HvX64IoPortInterceptMessage } from "../../lib/layout/hyperv/messages.ts";
import { HvX64RegisterPage } from "../../lib/layout/hyperv/register_page.ts";
import { CommandPage, GetSetVpRegisterRequest, TranslateGvaResponse } from "../../lib/layout/hyperv/sidecar.ts";
import { HYPERCALL_ABI } from "../../lib/layout/hyperv/constants/hypercalls.ts";
import { GetSetVpRegisters } from "../../lib/layout/hyperv/hypercalls.ts";
import { HvRegisterAssoc } from "../../lib/layout/hyperv/registers.ts";

const RAX = HvMessage.at.payload_buffer + HvX64IoPortInterceptMessage.at.rax;

Deno.test("the RAX of an I/O-port message lies at 176 of the assist page, 1104 of the command page, 80 of the run page", () => {
  assertEquals(HvVpAssistPage.at.intercept_message + RAX, 0xb0);
  assertEquals(CommandPage.at.intercept_message + RAX, 1104);
  assertEquals(hcl_run.at.exit_message + RAX, 80);
});

Deno.test("a VTL return takes RAX at 16 and RCX at 24 of the assist page", () => {
  assertEquals(HvVpAssistPage.at["vtl_control.registers.rax"], 16);
  assertEquals(HvVpAssistPage.at["vtl_control.registers.rcx"], 24);
  assertEquals(HvVpAssistPage.at["intercept_message.header.typ"], 112);
  assertEquals(HvVpAssistPage.at.vtl_return_actions, 368);
});

Deno.test("slot 4 is RSP in the register page and CR2 in a register context", () => {
  assertEquals(HvX64RegisterPage.at["gp_registers.rsp"], 8 + 4 * 8);
  assertEquals(CommandPage.at["cpu_context.gps.cr2"], 0x10 + 4 * 8);
  assertEquals(hcl_run.at["context.gps_no_rsp.cr2"], 272 + 4 * 8);
});

Deno.test("FXSAVE begins 128 bytes into the register context", () => {
  assertEquals(CommandPage.at["cpu_context.fx_state"] - CommandPage.at.cpu_context, 0x80);
  assertEquals(hcl_run.at["context.fx_state.mxcsr"], 272 + 0x80 + 24);
});

Deno.test("records follow the heads of the register commands", () => {
  assertEquals(GetSetVpRegisterRequest.size, 16);
  assertEquals(TranslateGvaResponse.size, 80);
  assertEquals(GetSetVpRegisters.size, HYPERCALL_ABI.GET_SET_HEADER_SIZE);
  assertEquals(HvRegisterAssoc.size, HYPERCALL_ABI.REGISTER_ASSOC_SIZE);
});
